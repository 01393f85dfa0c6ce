// Package config holds the agent's own settings: what differs from node to
// node. Everything else is the cluster's and stands in its repository.
//
// A setting has one place for each source. A flag wins over the environment,
// the environment over the file, the file over [Default] (ecosystem.md 5).
package config

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/belfry-ha/belfry"
)

// Settings are values: they are passed by value and never written after
// [Load]. They hold paths to secrets, never secrets.
type Settings struct {
	Node    Node
	State   string // directory of this node's state ($STATE); one agent per directory, which is locked
	Socket  Socket
	Ports   Ports
	Web     Web
	Log     Log
	Journal Journal

	Repository Repository
	// Handlers run commands for events, by name.
	Handlers []Handler
	Witness  Witness
	// Resources are what clients depend on, by name.
	Resources []Resource
}

// Node says who this node is.
type Node struct {
	// Name of the node, unique in its cluster: 1 to 63 of a-z, 0-9 and -, not
	// first or last a -. Empty: the host name up to its first dot.
	Name string
}

// Socket is where the commands of this machine reach the agent.
type Socket struct {
	Path  string // of a unix socket, mode 0660; at most 107 bytes (unix(7))
	Group string // that may use it; empty: the agent's own
}

// Ports are where other nodes reach the agent, on each address of the member
// list. 1 to 65,535.
type Ports struct {
	Heartbeat int // UDP
	Streams   int // TCP; mutual TLS
}

// Web is the listener of dashboard, JSON and metrics.
type Web struct {
	// Listen is HOST:PORT. Any host but loopback needs TLS. Empty: no listener.
	Listen string
	TLS    TLS
}

// TLS names PEM files. Both or neither are set.
type TLS struct {
	Cert string // certificate chain, the listener's own first
	Key  string // its private key; readable by its owner only
}

// Log says what the agent logs and how.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // auto, journal, text or json; auto: journal under systemd, text on a terminal, else json
}

// Journal says how much of what happens is kept on this node's disk, below
// the state directory.
type Journal struct {
	Size string // most bytes, with a unit: 256MiB; 64KiB to 1TiB
	Age  string // how long: 72h; 1m to 8760h
	// Active are selectors of events that are recorded although nobody watches
	// them: their producers run for the journal. All else is recorded while
	// somebody watches it.
	Active []string
}

// Repository says where this machine has the cluster's repository, if it has one.
type Repository struct {
	// Search are folders whose files *.belfry are looked at beside all
	// block devices. Which of them is the cluster's says what is on it.
	Search []string
	Etcd   Etcd
}

// Etcd is how this machine reaches etcd, where the repository is there. Where in
// etcd it lies stands in the configuration.
type Etcd struct {
	// Endpoints are HOST:PORT, or unix:///PATH, of etcd. Empty: those of the
	// configuration.
	Endpoints []string
	CA        string // PEM file with the authority of etcd's certificates; empty: those that this machine trusts
	Cert      string // PEM file with the certificate of this client; empty: none
	Key       string // its private key; readable by its owner only
	User      string // of etcd; empty: none, or that of the certificate
	// PasswordFile has the user's password in its first line; readable by its
	// owner only.
	PasswordFile string
}

// Bytes is Size; 0 for what Validate refuses.
func (j Journal) Bytes() int64 {
	n, ok := belfry.ParseValue("bytes", j.Size)
	if !ok || n < 64<<10 || n > 1<<40 {
		return 0
	}
	return int64(n)
}

// Duration is Age; 0 for what Validate refuses.
func (j Journal) Duration() time.Duration {
	d, err := time.ParseDuration(j.Age)
	if err != nil || d < time.Minute || d > 8760*time.Hour {
		return 0
	}
	return d
}

// Witness says whether and how clients are served that depend on resources of
// other nodes.
type Witness struct {
	Enabled          bool   // false: they are sent to other nodes
	KeepAlive        string // how long a call waits without news, 1s to 1m
	UnusedTimeout    string // how long a registration lives that nobody waits for, 1s to 1h
	MaxRegistrations int    // of all together; 1 to 1,000,000
	MaxPerPrincipal  int    // of one: a uid, or the name in a certificate; likewise
	MaxPerSource     int    // from one address, or of one local user; likewise
}

// Times are KeepAlive and UnusedTimeout; 0 for what Validate refuses.
func (w Witness) Times() (keepAlive, unused time.Duration) {
	within := func(text string, most time.Duration) time.Duration {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Second || d > most {
			return 0
		}
		return d
	}
	return within(w.KeepAlive, time.Minute), within(w.UnusedTimeout, time.Hour)
}

// Default is what holds where nothing else is said.
func Default() Settings {
	return Settings{
		State:  "/var/lib/belfry",
		Socket: Socket{Path: "/run/belfry/belfry.sock", Group: "belfry"},
		Ports:  Ports{Heartbeat: 7431, Streams: 7432},
		Web:    Web{Listen: "127.0.0.1:7433"},
		Log:    Log{Level: "info", Format: "auto"},

		Journal: Journal{Size: "256MiB", Age: "72h"},

		Repository: Repository{Search: []string{"/var/lib/belfry"}},
		Witness: Witness{
			Enabled: true, KeepAlive: "5s", UnusedTimeout: "30s",
			MaxRegistrations: 20_000, MaxPerPrincipal: 10_000, MaxPerSource: 10_000,
		},
	}
}

// maxFileBytes bounds a settings file. It is hundreds of times what all keys
// with comments take.
const maxFileBytes = 1 << 20

// Load merges the sources and validates the result. file may be empty: no
// file. environ has the form of [os.Environ]; flags are "KEY=VALUE" with the
// file's keys, dots between their parts. Every fault that is found is in the
// error, one a line; it wraps [belfry.ErrUsage], or [belfry.ErrNotFound] and
// [belfry.ErrPermission] where a file is not there or may not be read.
func Load(file string, environ []string, flags ...string) (Settings, error) {
	s := Default()
	var faults []error
	if file != "" {
		text, err := readFile(file)
		if err != nil {
			return s, err
		}
		faults = append(faults, s.parse(file, text)...)
	}
	faults = append(faults, s.setEnvironment(environ)...)
	faults = append(faults, s.setFlags(flags)...)
	if len(faults) > 0 { // what was not understood would only give more of them
		return s, errors.Join(faults...)
	}
	return s, errors.Join(s.Validate(), s.checkSecrets(), s.checkHandlers(file))
}

func readFile(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, &belfry.Error{Op: "settings", Subject: file, Err: fileFault(err)}
	}
	if len(text) > maxFileBytes {
		return nil, &belfry.Error{Op: "settings", Subject: file, Err: faultf("%d bytes; at most %d", len(text), maxFileBytes)}
	}
	return text, nil
}

// checkSecrets refuses a private key or password that others may read: who reads
// it can pose as this listener, or as this client of etcd.
func (s Settings) checkSecrets() error {
	var faults []error
	for _, secret := range []struct{ key, file, what string }{
		{"web.tls.key", s.Web.TLS.Key, "private key"},
		{"repository.etcd.key", s.Repository.Etcd.Key, "private key"},
		{"repository.etcd.password_file", s.Repository.Etcd.PasswordFile, "password"},
	} {
		if secret.file == "" {
			continue
		}
		at, err := os.Stat(secret.file)
		switch {
		case err != nil:
			faults = append(faults, &belfry.Error{Op: secret.key, Subject: secret.file, Err: fileFault(err)})
		case at.Mode().Perm()&0o077 != 0:
			faults = append(faults, &belfry.Error{
				Op: secret.key, Subject: secret.file,
				Err: faultf("mode %04o lets others read the %s; make it 0600", at.Mode().Perm(), secret.what),
			})
		}
	}
	return errors.Join(faults...)
}

// A fault is wrong use whose text says it all, without the sentinel's words.
type fault struct {
	text string
	is   error
}

func (f fault) Error() string { return f.text }

func (f fault) Unwrap() error { return f.is }

func faultf(format string, args ...any) error {
	return fault{fmt.Sprintf(format, args...), belfry.ErrUsage}
}

// fileFault words an error of the operating system without its operation and
// path, which the caller names.
func fileFault(err error) error {
	var pathErr *os.PathError
	text := err.Error()
	if errors.As(err, &pathErr) {
		text = pathErr.Err.Error()
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fault{text + "; name a file that exists", belfry.ErrNotFound}
	case errors.Is(err, os.ErrPermission):
		return fault{text + "; let this user read it", belfry.ErrPermission}
	}
	return fault{text + "; name a readable file", belfry.ErrUsage}
}
