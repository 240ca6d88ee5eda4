"""Values as people and programs read them: Markdown, units, SVG, Prometheus' text format."""
