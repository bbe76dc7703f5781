"""Systems of the literature: networks and methods behind one contract; no files, no slides."""
