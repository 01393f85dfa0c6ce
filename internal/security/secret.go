package security

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/belfry-ha/belfry"
)

// A Secret is the group secret of one epoch: the keys of datagrams come from
// it. It does not print.
type Secret [32]byte

// Format writes "secret", whatever the verb, so that no log or error shows it.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("secret")) }

// NewSecret draws one from the operating system's random source.
func NewSecret() (s Secret) {
	rand.Read(s[:])
	return s
}

const secretPrefix = "group-"

// WriteSecret keeps the secret of an epoch in the folder of keys. It wraps
// ErrExist if there is one; an epoch has one secret for good.
func WriteSecret(dir string, epoch uint32, s Secret) error {
	text := hex.AppendEncode(nil, s[:])
	defer clear(text)
	return writeFile(secretFile(dir, epoch), append(text, '\n'), false)
}

// RemoveSecret forgets the secret of an epoch that is over. One that is not
// there is no error.
func RemoveSecret(dir string, epoch uint32) error {
	if err := os.Remove(secretFile(dir, epoch)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove secret: %w", err)
	}
	return nil
}

// removeSecrets forgets the secrets of all epochs. A newer epoch of another
// cluster would otherwise count as the present one.
func removeSecrets(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove secret: %w", err)
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), secretPrefix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
			return fmt.Errorf("remove secret: %w", err)
		}
	}
	return nil
}

func secretFile(dir string, epoch uint32) string {
	return filepath.Join(dir, secretPrefix+strconv.FormatUint(uint64(epoch), 10))
}

// readSecrets reads all that are kept, and the newest epoch. It wraps
// ErrNotFound if there is none.
func readSecrets(dir string) (all map[uint32]Secret, newest uint32, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, 0, fmt.Errorf("read keys: %w", err)
	}
	all = map[uint32]Secret{}
	for _, entry := range entries {
		number, ok := strings.CutPrefix(entry.Name(), secretPrefix)
		if !ok {
			continue
		}
		epoch, err := strconv.ParseUint(number, 10, 32)
		if err != nil || strconv.FormatUint(epoch, 10) != number {
			return nil, 0, fmt.Errorf("%w: file %s; its name is %sEPOCH", belfry.ErrUsage, filepath.Join(dir, entry.Name()), secretPrefix)
		}
		if all[uint32(epoch)], err = readSecret(secretFile(dir, uint32(epoch))); err != nil {
			return nil, 0, err
		}
		newest = max(newest, uint32(epoch))
	}
	if len(all) == 0 {
		return nil, 0, fmt.Errorf("%w: no group secret in %s; join the cluster again, nothing is sent without one", belfry.ErrNotFound, dir)
	}
	return all, newest, nil
}

func readSecret(name string) (s Secret, err error) {
	text, err := readFile(name)
	if err != nil {
		return Secret{}, err
	}
	defer clear(text)
	trimmed := strings.TrimSuffix(string(text), "\n")
	if n, err := hex.Decode(s[:], []byte(trimmed[:min(len(trimmed), 64)])); err != nil || n != len(s) || len(trimmed) != 64 {
		return Secret{}, fmt.Errorf("%w: %s holds no secret; 64 hexadecimal digits", belfry.ErrUsage, name)
	}
	return s, nil
}
