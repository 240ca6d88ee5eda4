"""One host: its files, its errors, its clock, who works on it, and what /proc says of it.

Takes in paths and kernel text, gives out parsed values. Imports no other package. Whatever touches the machine takes a
`Host`, whose root is `/` or a test's tree.
"""
