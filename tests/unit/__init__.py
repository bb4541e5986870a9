"""No kernel, no cluster: values in, values out, and the parts over the shipped in-memory table."""
