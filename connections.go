package main

// connections is how many connections the server may have open. By default they leave most of the files that the process may open to what is
// asked for over them: a blob, an upload, a connection to a registry behind this one.
func (c Config) connections() int {
	if c.Limits.Connections > 0 {
		return c.Limits.Connections
	}
	return max(64, min(openFiles()/4, 16_384))
}
