// Package home is a node's directory: its config, key, format version and lock,
// and where its store and its socket are.
package home

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gofrs/flock"

	"village/node/api"
	"village/protocol/record"
)

// Format is the version of the layout of a home that this program writes.
const Format = 1

// The files of a home, beside api.AddressFile.
const (
	ConfigFile  = "config.toml"
	keyFile     = "node.key"
	storeDir    = "store"
	lockFile    = "lock"
	versionFile = "version"
	socketFile  = "api.sock"
	unusedFile  = "unused"
)

// Home is an initialised directory. Its methods may be called from several
// goroutines.
type Home struct {
	Dir string // absolute
	Key ed25519.PrivateKey
	ID  record.NodeID // of Key

	mu     sync.Mutex
	config Config
	lock   *flock.Flock
}

// Options is what init decides. Zero values mean the defaults.
type Options struct {
	Nation     string // any case
	Name       string
	Federation string // "" makes a random one
	Listen     []string
	Announce   []string
	Peers      []string
	NoMDNS     bool
}

// Init makes a new home with a new key in dir, which must be absent or empty.
func Init(dir string, o Options) (*Home, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c := Default()
	c.Name, c.Federation = o.Name, o.Federation
	c.Listen, c.Announce, c.Peers, c.MDNS = o.Listen, o.Announce, o.Peers, !o.NoMDNS
	if c.Nation, err = CheckNation(o.Nation); err != nil {
		return nil, err
	}
	if c.Federation == "" {
		c.Federation = randomFederation()
	}
	if err := c.Check(); err != nil {
		return nil, api.Fail(api.CodeUsage, "village init --help", "%v", err)
	}
	if err := checkEmpty(dir); err != nil {
		return nil, err
	}
	if len(c.Listen) == 0 {
		// The default stays out of the file, so that a node keeps following it;
		// another port is written, so that a node keeps its address.
		addrs, err := c.ListenAddrs()
		if err != nil {
			return nil, err
		}
		if !slices.Equal(addrs, listenOn(DefaultPort)) {
			c.Listen = addrs
		}
	}
	return create(dir, c)
}

// checkEmpty refuses a directory that holds anything, and says what it is.
func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0:
		return nil
	case err != nil:
		return api.Fail(api.CodeFailed, "village init --home DIR", "cannot use %s as a home: %v", dir, err)
	case Check(dir) == nil:
		return api.Fail(api.CodeFailed, "village daemon --home "+api.Quote(dir), "%s is a node's home already", dir)
	default:
		return api.Fail(api.CodeFailed, "village init --home DIR, with a directory that is empty or does not exist",
			"%s holds other files, such as %q; nothing was changed", dir, entries[0].Name())
	}
}

// create writes the files of a home, the version last: a directory without it
// is not a home. On an error it removes what it has written.
func create(dir string, c Config) (h *Home, err error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	config, err := c.encode()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	files := []struct{ name, content string }{
		{keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))},
		{ConfigFile, string(config)},
		{unusedFile, "no daemon has run here yet\n"},
		{versionFile, strconv.Itoa(Format) + "\n"},
	}
	for i, f := range files {
		if err := writeString(filepath.Join(dir, f.name), 0o600, f.content); err != nil {
			for _, written := range files[:i] {
				os.Remove(filepath.Join(dir, written.name))
			}
			return nil, err
		}
	}
	return &Home{Dir: dir, Key: key, ID: record.NodeIDOf(public), config: c}, nil
}

// Check says whether dir is a home that this program can use, without looking
// at its config and key.
func Check(dir string) error {
	next := "village init --nation HUN --name \"Budapest\" --home " + api.Quote(dir)
	b, err := readSmall(filepath.Join(dir, versionFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
			return api.Fail(api.CodeNotInitialised, `village init --nation HUN --name "Budapest" --home DIR, with an empty directory`,
				"not initialised: %s is not a node's home, it holds other files", dir)
		}
		return api.Fail(api.CodeNotInitialised, next, "not initialised: there is no node in %s", dir)
	case err != nil:
		return api.Fail(api.CodeNotInitialised, next, "cannot read the home %s: %v", dir, err)
	}
	format, err := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err != nil || format < 1:
		return api.Fail(api.CodeNotInitialised, next, "not initialised: %s is not a node's home, its file %q is of something else", dir, versionFile)
	case format > Format:
		return api.Fail(api.CodeFailed, "install a newer village",
			"the home %s has format %d, which is newer than this program knows (%d)", dir, format, Format)
	}
	return nil
}

// Load opens the home in dir.
func Load(dir string) (*Home, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := Check(dir); err != nil {
		return nil, err
	}
	h := &Home{Dir: dir}
	if err := h.readKey(); err != nil {
		return nil, err
	}
	if err := h.readConfig(); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *Home) readKey() error {
	path := filepath.Join(h.Dir, keyFile)
	info, err := os.Stat(path)
	if err != nil {
		return api.Fail(api.CodeFailed, "restore "+api.Quote(path)+" from a backup", "the node's key is missing: %v", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return api.Fail(api.CodeFailed, "chmod 600 "+api.Quote(path),
			"others may read the node's key: %s has mode %04o, not 0600", path, info.Mode().Perm())
	}
	b, err := readSmall(path)
	if err != nil {
		return api.Fail(api.CodeFailed, "chmod 600 "+api.Quote(path), "cannot read the node's key: %v", err)
	}
	if block, _ := pem.Decode(b); block != nil && block.Type == "PRIVATE KEY" {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if key, ok := key.(ed25519.PrivateKey); ok {
				h.Key, h.ID = key, record.NodeIDOf(key.Public().(ed25519.PublicKey))
				return nil
			}
		}
	}
	return api.Fail(api.CodeFailed, "restore "+api.Quote(path)+" from a backup", "%s is not an Ed25519 key in PEM (PKCS #8)", path)
}

func (h *Home) readConfig() error {
	path := filepath.Join(h.Dir, ConfigFile)
	next := "edit " + api.Quote(path)
	b, err := readSmall(path)
	if err != nil {
		return api.Fail(api.CodeFailed, next, "cannot read the config: %v", err)
	}
	c, err := ParseConfig(b)
	if err != nil {
		return api.Fail(api.CodeFailed, next, "%v", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.config = c
	return nil
}

// Config returns the config as it stands. Its lists must not be changed.
func (h *Home) Config() Config {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.config
}

// Members is the allow-list, with the node itself: nil where the federation is open.
func (h *Home) Members() []record.NodeID {
	c := h.Config()
	if c.Members == nil {
		return nil
	}
	return append([]record.NodeID{h.ID}, c.Members...)
}

// Knows tells whether the config names a node, as a member or a peer, or is its own.
func (h *Home) Knows(id record.NodeID) bool {
	c := h.Config()
	return id == h.ID || slices.Contains(c.Members, id) || slices.ContainsFunc(c.Peers, func(address string) bool {
		of, err := PeerOf(address)
		return err == nil && of == id
	})
}

// Update changes the config and saves it. Only the holder of the lock may call
// it. Change gets copies of the lists; where it fails nothing is changed.
func (h *Home) Update(change func(*Config) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.config
	c.Listen, c.Announce, c.Peers = slices.Clone(c.Listen), slices.Clone(c.Announce), slices.Clone(c.Peers)
	c.Members = slices.Clone(c.Members)
	if err := change(&c); err != nil {
		return err
	}
	if err := c.Check(); err != nil {
		return err
	}
	b, err := c.encode()
	if err != nil {
		return err
	}
	if err := writeString(filepath.Join(h.Dir, ConfigFile), 0o600, string(b)); err != nil {
		return fmt.Errorf("cannot save the config: %w", err)
	}
	h.config = c
	return nil
}

// Unused says whether no daemon has opened a store here yet: then there was none to
// be lost.
func (h *Home) Unused() bool {
	_, err := os.Stat(filepath.Join(h.Dir, unusedFile))
	return err == nil
}

// Use notes that a daemon has opened its store.
func (h *Home) Use() error {
	err := os.Remove(filepath.Join(h.Dir, unusedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// StoreDir is the directory of the store.
func (h *Home) StoreDir() string { return filepath.Join(h.Dir, storeDir) }

// Lock takes the home for this process until Unlock or the process's end. It
// reads the config again, which another process may have changed until now.
// Calling it again while holding the lock does nothing.
func (h *Home) Lock() error {
	h.mu.Lock()
	held := h.lock != nil
	h.mu.Unlock()
	if held {
		return nil
	}
	path := filepath.Join(h.Dir, lockFile)
	l := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if err != nil {
		return fmt.Errorf("cannot lock the home: %w", err)
	}
	if !ok {
		holder := "another process"
		if b, err := readSmall(path); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				holder = fmt.Sprintf("process %d", pid)
			}
		}
		return api.Fail(api.CodeHomeInUse, "village status --home "+api.Quote(h.Dir), "the home %s is in use by %s", h.Dir, holder)
	}
	// The pid is only for people; the lock is the kernel's.
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		l.Unlock()
		return fmt.Errorf("cannot lock the home: %w", err)
	}
	if err := h.readConfig(); err != nil {
		l.Unlock()
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lock = l
	return nil
}

// Unlock gives the home back. The lock file stays: removing it would let two
// processes each lock a file of that name.
func (h *Home) Unlock() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lock == nil {
		return nil
	}
	err := errors.Join(os.Truncate(filepath.Join(h.Dir, lockFile), 0), h.lock.Unlock())
	h.lock = nil
	return err
}

// readSmall reads a file of at most 1 MiB.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const limit = 1 << 20
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && len(b) > limit {
		err = fmt.Errorf("%s is larger than 1 MiB", path)
	}
	return b, err
}
