"""Making settings persistent: drop-ins for tmpfiles.d, mount units."""
