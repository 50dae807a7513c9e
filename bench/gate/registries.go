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
	file, err := configureDistribution(dir, "tcp", host)
	if err != nil {
		return nil, err
	}
	return start(host, program, "serve", file)
}

// startDistributionSocket runs another one on the same folder, which listens at a Unix socket.
func startDistributionSocket(program, dir, socket string) (*process, error) {
	file, err := configureDistribution(dir, "unix", socket)
	if err != nil {
		return nil, err
	}
	return startAt("unix", socket, program, "serve", file)
}

// configureDistribution writes a configuration that has the registry keep its files in a folder, and returns its path.
func configureDistribution(dir, network, address string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	file := filepath.Join(dir, network+".yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nhttp: {net: %s, addr: %q, secret: bench}\n"+
		"storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}, maintenance: {uploadpurging: {enabled: false}}}\n", network, address, filepath.Join(dir, "data"))
	return file, os.WriteFile(file, []byte(text), 0o600)
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
		text += fmt.Sprintf("upstream: {url: %q}\n", upstream)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return start(host, program, "serve", "--config", file, "--dir", filepath.Join(dir, "data"))
}
