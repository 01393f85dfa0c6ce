package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// maxSocketPath is the longest path that a unix socket can have, without its
// closing zero byte (unix(7), sun_path).
const maxSocketPath = 107

// Validate names every wrong setting, one a line; each wraps
// [belfry.ErrUsage]. It looks at the values only, at no file.
func (s Settings) Validate() error {
	var faults []error
	check := func(name string, err error) {
		if err != nil {
			faults = append(faults, faultf("%s: %v", name, err))
		}
	}
	check("node.name", validName(s.Node.Name))
	check("state", notEmpty(s.State, "name a directory"))
	check("socket.path", validSocket(s.Socket.Path))
	check("ports.heartbeat", validPort(s.Ports.Heartbeat))
	check("ports.streams", validPort(s.Ports.Streams))
	check("web.listen", s.Web.validListen())
	check("web.tls", s.Web.TLS.valid())
	check("log.level", oneOf(s.Log.Level, "debug", "info", "warn", "error"))
	check("log.format", oneOf(s.Log.Format, "auto", "journal", "text", "json"))
	if s.Journal.Bytes() == 0 {
		check("journal.size", faultf("%q is no size for it; write 64KiB to 1TiB, for example 256MiB", s.Journal.Size))
	}
	if s.Journal.Duration() == 0 {
		check("journal.age", faultf("%q is no age for it; write 1m to 8760h, for example 72h", s.Journal.Age))
	}
	if slices.Contains(s.Journal.Active, "") {
		check("journal.active", faultf("names no event; for example [node.state, process.exit:unit=nginx.service]"))
	}
	for _, folder := range s.Repository.Search {
		check("repository.search", notEmpty(folder, "name a folder"))
	}
	check("repository.etcd", s.Repository.Etcd.valid())
	return errors.Join(slices.Concat(faults, s.validHandlers(), s.validResources())...)
}

func (e Etcd) valid() error {
	switch {
	case (e.Cert == "") != (e.Key == ""):
		return faultf("cert and key belong together; set both or neither")
	case (e.User == "") != (e.PasswordFile == ""):
		return faultf("user and password_file belong together; set both or neither")
	}
	for _, endpoint := range e.Endpoints {
		if err := notEmpty(endpoint, "write HOST:PORT"); err != nil {
			return err
		}
	}
	return nil
}

func validName(name string) error {
	if name == "" {
		return nil // the host's
	}
	ok := len(name) <= 63 && name[0] != '-' && name[len(name)-1] != '-'
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return faultf("%q is no node name; use 1 to 63 of a-z, 0-9 and -, not first or last a -", name)
	}
	return nil
}

func notEmpty(value, remedy string) error {
	switch {
	case value == "":
		return faultf("is empty; %s", remedy)
	case strings.ContainsRune(value, 0):
		return faultf("%q holds a zero byte; %s", value, remedy)
	}
	return nil
}

func validSocket(path string) error {
	if err := notEmpty(path, "name a unix socket"); err != nil {
		return err
	}
	if len(path) > maxSocketPath {
		return faultf("%d bytes; a unix socket's path has at most %d", len(path), maxSocketPath)
	}
	return nil
}

func validPort(port int) error {
	if port < 1 || port > 65535 {
		return faultf("%d is no port; use 1 to 65535", port)
	}
	return nil
}

func (w Web) validListen() error {
	if w.Listen == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(w.Listen)
	if err != nil {
		return faultf("%q is no address; write HOST:PORT", w.Listen)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return faultf("%q is no port; use 1 to 65535", port)
	}
	if err := validPort(n); err != nil {
		return err
	}
	if !loopback(host) && w.TLS == (TLS{}) {
		return faultf("%s can be reached from other machines; set web.tls.cert and web.tls.key, or listen on 127.0.0.1", w.Listen)
	}
	return nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

func (t TLS) valid() error {
	switch {
	case t.Cert == "" && t.Key != "":
		return faultf("key without cert; set both or neither")
	case t.Cert != "" && t.Key == "":
		return faultf("cert without key; set both or neither")
	}
	return nil
}

func oneOf(value string, known ...string) error {
	if slices.Contains(known, value) {
		return nil
	}
	return faultf("%q is not known%s; one of %s", value, didYouMean(value, known), strings.Join(known, ", "))
}

// didYouMean is "; did you mean X?", or nothing where no name is near.
func didYouMean(name string, known []string) string {
	if near, ok := Nearest(name, known); ok {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return ""
}
