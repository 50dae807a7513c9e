package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"grindstone/registry"
	"grindstone/webhook"
)

func newGCCommand() *cobra.Command {
	client := &apiClient{}
	var flags struct {
		dir          string
		older        time.Duration
		remove, json bool
	}
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Show what is left behind on the disk, and remove it with --remove",
		Long: `Show what nothing needs any more: packages in quarantine whose admission was released or denied, or that no admission knows; scratch folders
of sanitizers that are not in work; writes and uploads that were cut off; records of push events that are over; notes of who sent what is gone. Nothing is removed without --remove. Models that are held, and what is
released, are never garbage.

A running server is asked (--server, operators only). For a server that does not run, name its folder with --dir.`,
		Example: `  grindstone gc                                    # what would be removed
  grindstone gc --remove
  grindstone gc --dir grindstone-data --older-than 168h --remove`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.older < 0 {
				return usageError("--older-than %v is negative", flags.older)
			}
			var c webhook.Collection
			var err error
			if flags.dir != "" {
				c, err = collectOffline(cmd.Context(), flags.dir, flags.older, flags.remove)
			} else {
				err = client.exchange(cmd.Context(), http.MethodPost, "/api/v1/gc", nil,
					map[string]any{"older_than": flags.older.String(), "remove": flags.remove}, &c)
			}
			if err != nil {
				return err
			}
			if flags.json {
				return printJSON(cmd.OutOrStdout(), c)
			}
			return printCollection(cmd.OutOrStdout(), c, removal(cmd))
		},
	}
	serverFlags(cmd, client)
	cmd.Flags().StringVar(&flags.dir, "dir", "", "folder of a server that does not run")
	cmd.Flags().DurationVar(&flags.older, "older-than", 24*time.Hour, "only what has not changed for this long")
	cmd.Flags().BoolVar(&flags.remove, "remove", false, "remove it")
	cmd.Flags().BoolVar(&flags.json, "json", false, "print JSON")
	return cmd
}

// collectOffline does the server's work on the folder of a server that does not run. Looking needs no lock.
func collectOffline(ctx context.Context, dir string, older time.Duration, remove bool) (webhook.Collection, error) {
	found, err := webhook.FindGarbage(ctx, dir, older)
	if err != nil || !remove {
		return webhook.NewCollection(found, false), err
	}
	gateway, err := registry.New(registry.Config{
		Dir: filepath.Join(dir, "registry"), Intercept: func(string) bool { return true }, Admitter: nobodyPushes{}, Log: slog.New(slog.DiscardHandler),
	})
	if errors.Is(err, registry.ErrLocked) {
		return webhook.Collection{}, fmt.Errorf("%w: the server runs; leave --dir out to ask it, or name it with --server", err)
	} else if err != nil {
		return webhook.Collection{}, err
	}
	if found, err = webhook.FindGarbage(ctx, dir, older); err == nil { // again, now that nothing changes
		found, err = webhook.RemoveGarbage(ctx, dir, found, gateway)
	}
	return webhook.NewCollection(found, true), errors.Join(err, gateway.Close())
}

// nobodyPushes is the admitter of a registry that serves nobody.
type nobodyPushes struct{}

func (nobodyPushes) Admit(context.Context, registry.Push) (*registry.Denial, error) {
	return nil, errors.New("the registry is not served")
}

func (nobodyPushes) Status(string, string) (registry.Status, bool) { return registry.Status{}, false }

// removal is the command that removes what a look without --remove found: the same one with it. What the server's URL and token are, it leaves to the reader.
func removal(cmd *cobra.Command) string {
	line := cmd.CommandPath()
	for _, name := range []string{"dir", "older-than"} {
		if f := cmd.Flags().Lookup(name); f.Changed {
			line += " --" + name + " " + f.Value.String()
		}
	}
	return line + " --remove"
}

func printCollection(w io.Writer, c webhook.Collection, removal string) error {
	if len(c.Garbage) == 0 {
		_, err := fmt.Fprintln(w, "nothing is left behind")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KIND\tBYTES\tAGE\tPATH\tWHY")
	for _, g := range c.Garbage {
		path := g.Path
		if g.Digest != "" {
			path += "@" + g.Digest
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\n", g.Kind, g.Bytes, ago(g.ModifiedAt), path, g.Why)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if c.Removed {
		_, err := fmt.Fprintf(w, "removed %d, %d bytes; the blobs of packages go within a day, while the server runs\n", len(c.Garbage), c.Bytes)
		return err
	}
	_, err := fmt.Fprintf(w, "%d to remove, %d bytes: %s\n", len(c.Garbage), c.Bytes, removal)
	return err
}
