package webhook

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestReadyBlamesWhatHangs: a check that hangs until its time is over takes none from the others.
func TestReadyBlamesWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := Check{"registry", func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("the registry behind this one does not answer")
		}}
		slow := Check{"runtime", func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return errors.New("no time was left")
			case <-time.After(checkTime / 2):
				return nil
			}
		}}
		begin := time.Now()
		got := examine(t.Context(), []Check{hangs, slow, hangs})
		want := []checked{{"registry", false, "the registry behind this one does not answer"}, {"runtime", true, ""}, {"registry", false, "the registry behind this one does not answer"}}
		if took := time.Since(begin); !slices.Equal(got, want) || took != checkTime {
			t.Errorf("after %v: %+v, want %+v", took, got, want)
		}
	})
}
