package event

import (
	"fmt"

	"github.com/belfry-ha/belfry"
)

// refused is an error whose text is for the user and whose sentinel is for
// programs. It does not repeat the sentinel's text.
type refused struct {
	text     string
	sentinel error
}

func (e *refused) Error() string { return e.text }
func (e *refused) Unwrap() error { return e.sentinel }

func refusal(sentinel error, format string, args ...any) error {
	return &refused{text: fmt.Sprintf(format, args...), sentinel: sentinel}
}

// noEvent is the answer to a registration without Wait.
func noEvent(class belfry.Class, subject string) error {
	return refusal(belfry.ErrNoEvent, "%s: there is no such event now; add --wait to wait until there is", label(class, subject))
}

// label is the selector form that people read and write.
func label(class belfry.Class, subject string) string {
	if subject == "" {
		return string(class)
	}
	return string(class) + ":" + subject
}
