// Package logins finds the logins to registries that other tools have stored on this machine.
package logins

import (
	"os"
	"path/filepath"

	"oras.land/oras-go/v2/registry/remote/credentials"
)

// Stored are those of Docker's configuration, which ORAS and Helm share, and after them Podman's.
func Stored() (credentials.Store, error) {
	docker, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, err
	}
	path := podmanFile()
	if path == "" {
		return docker, nil
	}
	podman, err := credentials.NewStore(path, credentials.StoreOptions{})
	if err != nil {
		return nil, err
	}
	return credentials.NewStoreWithFallbacks(docker, podman), nil
}

// podmanFile is where containers-auth.json(5) has it; "" where there is no such place.
func podmanFile() string {
	if path := os.Getenv("REGISTRY_AUTH_FILE"); path != "" {
		return path
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "containers", "auth.json")
	}
	if dir, err := os.UserConfigDir(); err == nil {
		return filepath.Join(dir, "containers", "auth.json")
	}
	return ""
}
