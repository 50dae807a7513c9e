package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// startDistribution runs CNCF distribution on an empty folder.
func startDistribution(program, dir string) (*process, error) {
	host, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nhttp: {addr: %q, secret: bench}\n"+
		"storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}, maintenance: {uploadpurging: {enabled: false}}}\n", host, filepath.Join(dir, "data"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return start(host, program, "serve", file)
}

// startOlareg runs olareg on an empty folder.
func startOlareg(program, dir string) (*process, error) {
	host, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	address, port, err := net.SplitHostPort(host)
	if err != nil {
		return nil, err
	}
	return start(host, program, "serve", "--dir", dir, "--addr", address, "--port", port)
}

// startGateway runs grindstone in front of a registry, or with its embedded one if upstream is "". What is pushed under models/ is intercepted. There is
// no clean data: models are held, and what holds no model is released as it is.
func startGateway(program, dir, upstream string) (*process, error) {
	host, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "grindstone.yaml")
	text := fmt.Sprintf("listen: %q\nintercept: [\"models/**\"]\nlog: {level: warn}\n", host)
	if upstream != "" {
		text += fmt.Sprintf("upstream: {url: \"http://%s\"}\n", upstream)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return start(host, program, "serve", "--config", file, "--dir", filepath.Join(dir, "data"))
}
