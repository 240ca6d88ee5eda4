"""Reading and writing one host: its files, errors, clock, lease, and the parsers of /proc.

Takes in paths and kernel text, gives out parsed values. Imports no other package. Whatever touches the machine takes a
`Host`, whose root is `/` or a test's tree.
"""
