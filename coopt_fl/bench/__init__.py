"""``coopt bench``: how near to the hardware this host comes."""
