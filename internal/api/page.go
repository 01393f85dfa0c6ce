package api

import (
	"encoding/base64"
	"fmt"

	"github.com/belfry-ha/belfry"
)

// maxPage bounds a page whatever is asked for, so that an answer stays below
// maxResponse.
const (
	defaultPage = 1000
	maxPage     = 10000
)

// page cuts one page out of rows, which are sorted by key. A token holds the
// key of the last row that was sent, so rows that come and go between two
// pages shift nothing.
func page[T any](rows []T, size uint32, tok string, key func(*T) string) (rest []T, next string, err error) {
	if size == 0 {
		size = defaultPage
	}
	n := int(min(size, maxPage))
	after := ""
	if tok != "" {
		raw, err := base64.RawURLEncoding.DecodeString(tok)
		if err != nil {
			return nil, "", fmt.Errorf("%w: page token %q is not one of ours; take next_page_token of the page before", belfry.ErrUsage, tok)
		}
		after = string(raw)
		for len(rows) > 0 && key(&rows[0]) <= after {
			rows = rows[1:]
		}
	}
	if len(rows) <= n {
		return rows, "", nil
	}
	return rows[:n], pageToken(key(&rows[n-1])), nil
}

// pageToken asks for what comes after this key.
func pageToken(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }
