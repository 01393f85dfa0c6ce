package main

import (
	"crypto/ed25519"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/license"
)

// readInput reads a file that a person names; - is standard input. ErrLimit: it
// is longer than limit, in bytes, which is found without reading it all.
func (a *app) readInput(name string, limit int) ([]byte, error) {
	if name == "-" {
		return readAll("standard input", a.in, limit)
	}
	text, _, err := readRegular(name, limit)
	return text, err
}

func readAll(name string, r io.Reader, limit int) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err == nil && len(text) > limit {
		return nil, failf(belfry.ErrLimit, "%s: more than %d bytes, which is the most; is it the right file?", name, limit)
	}
	return text, err
}

// readRegular refuses what can not end or is no file.
func readRegular(name string, limit int) ([]byte, fs.FileInfo, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, openFault(name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.IsDir() {
		return nil, nil, usagef("%s is a directory; name a file", name)
	}
	text, err := readAll(name, f, limit)
	return text, info, err
}

// openFault words why a file can not be opened.
func openFault(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failf(belfry.ErrNotFound, "%s: no such file; name one that exists", name)
	case errors.Is(err, fs.ErrPermission):
		return failf(belfry.ErrPermission, "%s: may not be read; try again as its owner, or as root", name)
	}
	return err
}

// createFile makes a file that was not there, durable, or leaves none. An
// existing one is never overwritten: it may be the only copy of a key.
func createFile(name string, mode os.FileMode, data []byte) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return failf(belfry.ErrExist, "%s is there already, and is never overwritten; name another file, or move it away", name)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(name) // what is left of a failed write; the first error tells
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// maxKeyFile is far beyond what a key takes, in bytes.
const maxKeyFile = 4 << 10

// signingKey reads an issuer's private key. One that others may read is
// refused: whoever reads it can sign licenses.
func signingKey(name string) (ed25519.PrivateKey, error) {
	text, info, err := readRegular(name, maxKeyFile)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, failf(belfry.ErrPermission,
			"%s: mode %04o lets others read the private key; make it 0600 (chmod 600 %s), and sign with a new key if somebody may have read it", name, mode, name)
	}
	key, err := license.ParsePrivateKey(text)
	return key, ofFile(name, err)
}

// issuerKey reads an issuer's public key.
func issuerKey(name string) (ed25519.PublicKey, error) {
	text, _, err := readRegular(name, maxKeyFile)
	if err != nil {
		return nil, err
	}
	key, err := license.ParsePublicKey(text)
	return key, ofFile(name, err)
}

// ofFile names the file in an error about what is in it.
func ofFile(name string, err error) error {
	if err == nil {
		return nil
	}
	var e *belfry.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	return failf(err, "%s: %s", name, withoutSentinel(err))
}

// writePair makes the files of a new key, both or none.
func writePair(private, public string, key ed25519.PrivateKey) error {
	for _, name := range []string{private, public} { // told before anything is made
		if _, err := os.Lstat(name); err == nil {
			return failf(belfry.ErrExist, "%s is there already, and keys are never overwritten; name another file, or move it away", name)
		}
	}
	secret, err := license.EncodePrivateKey(key)
	if err != nil {
		return err
	}
	open, err := license.EncodePublicKey(key.Public().(ed25519.PublicKey))
	if err != nil {
		return err
	}
	if err := createFile(private, 0o600, secret); err != nil {
		return err
	}
	if err := createFile(public, 0o644, open); err != nil {
		return errors.Join(err, os.Remove(private))
	}
	return nil
}

// A day is a time that people write, whole or as a date.
type day string

// UnmarshalText takes RFC 3339 or a date.
func (d *day) UnmarshalText(text []byte) error {
	if _, err := day(text).begin(); err != nil {
		return err
	}
	*d = day(text)
	return nil
}

// String, Set and Type make a day a flag.
func (d *day) String() string { return string(*d) }

// Set is UnmarshalText, in the words of a flag.
func (d *day) Set(text string) error { return d.UnmarshalText([]byte(text)) }

// Type is the word in help texts.
func (d *day) Type() string { return "TIME" }

// begin is the first second of a day, or the time itself; zero for no text.
func (d day) begin() (time.Time, error) {
	if d == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, string(d)); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, usagef("no time; want one like 2026-12-31T23:59:59Z, or a date like 2026-12-31 in UTC")
}

// end is the last second of a day, or the time itself: ends of licenses include
// their second.
func (d day) end() (time.Time, error) {
	t, err := d.begin()
	if err == nil && len(d) == len(time.DateOnly) {
		t = t.Add(24*time.Hour - time.Second)
	}
	return t, err
}

// ofNothing is an error without its operation and subject.
func ofNothing(err error) error {
	var e *belfry.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	return failf(err, "%s", withoutSentinel(err))
}
