"""Files that are written once and read by everything later: runs, pools."""
