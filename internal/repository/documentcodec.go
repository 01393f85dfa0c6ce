package repository

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/belfry-ha/belfry"
)

// Encode is the one form of a document: JSON without white space, the fields
// in their order, the keys of maps sorted, no HTML escaping, one newline at the
// end. The hash of a generation covers these bytes.
//
// ErrUsage: a text that is not UTF-8, a time that is not in UTC, a field that
// is missing; ErrLimit: a limit of a field, or of [MaxDocument]. The error
// names the place. What it returns, [Decode] takes.
func Encode(d Document) ([]byte, error) {
	var out problems
	measure(reflect.ValueOf(d), "", limits{}, &out)
	if err := out.err(); err != nil {
		return nil, fail("encode", "", err)
	}
	data, err := written(d)
	if err != nil {
		return nil, fail("encode", "", err)
	}
	if _, err := parse(data); err != nil { // values that have no text
		return nil, fail("encode", "", err)
	}
	return data, nil
}

// written is the document in JSON, whatever is in it.
func written(d Document) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(d); err != nil {
		return nil, fmt.Errorf("%w: %w", belfry.ErrUsage, err)
	}
	return b.Bytes(), nil
}

// Decode reads what [Encode] writes, and nothing else. It does not judge what
// the document means: see [Document.Validate].
//
// ErrUnsupported: the document's schema is newer than [Schema]; ErrLimit: a
// limit of a field, or of [MaxDocument]; ErrUsage: all else. The error names
// the path and the byte.
func Decode(data []byte) (Document, error) {
	d, err := parse(data)
	if err != nil {
		return Document{}, fail("decode", "", err)
	}
	again, err := written(d)
	if err != nil {
		return Document{}, fail("decode", "", err)
	}
	if at := difference(data, again); at >= 0 {
		return Document{}, fail("decode", "", fmt.Errorf("%w: %s: byte %d: %s is not how it is written; want %s",
			belfry.ErrUsage, placeOf(data, at), at, excerpt(data, at), excerpt(again, at)))
	}
	return d, nil
}

// difference is the first byte that two texts do not share; -1: they are equal.
func difference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// excerpt quotes a few bytes of a document, for people.
func excerpt(data []byte, at int) string {
	return fmt.Sprintf("%q", data[min(at, len(data)):min(at+16, len(data))])
}

// MarshalText is the form of String.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (u *UUID) UnmarshalText(text []byte) error {
	id, err := belfry.ParseClusterID(string(text))
	*u = UUID(id)
	return err
}

// MarshalText is hexadecimal digits.
func (o OpID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, o[:]), nil }

// UnmarshalText is the inverse of MarshalText.
func (o *OpID) UnmarshalText(text []byte) error { return unhex(o[:], text) }

// MarshalText is the form of String.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText is the inverse of MarshalText.
func (d *Digest) UnmarshalText(text []byte) error { return unhex(d[:], text) }

func unhex(to, text []byte) error {
	if len(text) != 2*len(to) {
		return fmt.Errorf("%d characters; want %d hexadecimal digits", len(text), 2*len(to))
	}
	_, err := hex.Decode(to, text)
	return err
}
