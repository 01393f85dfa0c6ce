package side

import (
	"context"
	"fmt"
	"io"
)

// Turns runs each system in turn, reps times, and says on log how far it is.
func Turns(ctx context.Context, log io.Writer, what string, reps int, systems ...func(context.Context) error) error {
	defer fmt.Fprint(log, "\r\033[K")
	for rep := range reps {
		fmt.Fprintf(log, "\r%s: %d of %d ", what, rep+1, reps)
		for _, system := range systems {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := system(ctx); err != nil {
				return fmt.Errorf("%s, repetition %d: %w", what, rep+1, err)
			}
		}
	}
	return nil
}
