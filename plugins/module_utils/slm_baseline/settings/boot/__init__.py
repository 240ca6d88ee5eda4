"""What makes a setting survive a reboot: drop-ins for tmpfiles.d, mount units."""
