//go:build !unix

package main

// openFiles is how many files the process may have open.
func openFiles() int { return 1024 }
