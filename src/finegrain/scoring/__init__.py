"""Every source of reward behind one protocol: what scores answers, and what it needs to do so."""
