package home

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"village/node/api"
)

// maxSocketPath is the longest path of a unix socket that every system takes
// (sun_path has 104 bytes on macOS and 108 on Linux).
const maxSocketPath = 100

// SocketPath returns where the daemon's socket is: in the home, or, where that
// path is too long, in a private directory named by a hash of the home's path,
// which it makes.
func (h *Home) SocketPath() (string, error) {
	path := filepath.Join(h.Dir, socketFile)
	if len(path) <= maxSocketPath {
		return path, nil
	}
	base := os.Getenv("XDG_RUNTIME_DIR")
	if base == "" {
		base = os.TempDir()
	}
	sum := sha256.Sum256([]byte(h.Dir))
	dir := filepath.Join(base, "village-"+hex.EncodeToString(sum[:8]))
	path = filepath.Join(dir, socketFile)
	if len(path) > maxSocketPath {
		return "", api.Fail(api.CodeFailed, "set XDG_RUNTIME_DIR to a short private directory",
			"the paths of the home and of the directory for sockets are too long for a unix socket: %s", path)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	// In a shared directory somebody else may have made it first.
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm() != 0o700 || !ok || int(owner.Uid) != os.Getuid() {
		return "", api.Fail(api.CodeFailed, "remove it, or set XDG_RUNTIME_DIR to a private directory",
			"%s is not a private directory of this user", dir)
	}
	return path, nil
}

// Listen opens the socket, with mode 0600, and writes its path to the file that
// clients look in. Closing the listener removes both. The caller holds the
// lock, so that a socket left behind belongs to nobody.
func (h *Home) Listen() (net.Listener, error) {
	path, err := h.SocketPath()
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot remove the old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot open the socket: %w", err)
	}
	s := &socket{Listener: l, address: filepath.Join(h.Dir, api.AddressFile)}
	// Until here the directory, which is 0700, keeps others out.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := writeString(s.address, 0o600, path+"\n"); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// socket is a listener that takes its address file along when it closes.
type socket struct {
	net.Listener
	address string
}

func (s *socket) Close() error {
	os.Remove(s.address) // gone already after a first Close
	return s.Listener.Close()
}
