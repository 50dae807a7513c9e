package main

import "testing"

func TestConnectionsByDefault(t *testing.T) {
	c := DefaultConfig()
	if n := c.connections(); n < 64 || n > max(64, openFiles()/4) {
		t.Errorf("%d connections of %d files", n, openFiles())
	}
	if c.Limits.Connections = 7; c.connections() != 7 {
		t.Error("the configuration does not count")
	}
}
