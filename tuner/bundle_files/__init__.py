"""Files that every bundle carries: they run on the device, without Tessera."""
