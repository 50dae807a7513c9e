package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"grindstone/webhook"
)

func newAdmissionsCommand() *cobra.Command {
	client := &apiClient{}
	cmd := &cobra.Command{
		Use:   "admissions",
		Short: "See what was pushed, and decide about what is held",
		Long: `An admission is the record of one pushed model on its way from quarantine to release. These commands ask and tell a running server.
approve, reject and retry need the operator's role; while the server has no logins, that is who is on its machine. For an ID its beginning will do, six
characters or more, if no other admission's begins so.`,
		Example: `  # What is held, and why?
  grindstone admissions list --state held
  grindstone admissions show 0199c2f4-8d1e-7aaa-9c55-0d6f0f4d7c11

  # Another try, after the cause is mended; or release it as it was pushed; or refuse it for good
  grindstone admissions retry   0199c2f4-8d1e-7aaa-9c55-0d6f0f4d7c11
  grindstone admissions approve 0199c2f4-8d1e-7aaa-9c55-0d6f0f4d7c11 --reason "trained in house, see TICKET-7"
  grindstone admissions reject  0199c2f4-8d1e-7aaa-9c55-0d6f0f4d7c11 --reason "nobody knows who pushed it"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	serverFlags(cmd, client)
	cmd.AddCommand(newAdmissionsList(client), newAdmissionsShow(client), newAdmissionsWatch(client), newAdmissionsLogs(client),
		newAdmissionsOperation(client, webhook.OperationApprove, "Release a held model as it was pushed, without sanitizing", `Approve releases a held model as it was pushed. The attestation
says so: it names the operator and the reason, it is not that of a sanitized model, and "grindstone verify" refuses it unless told --allow-approved.`),
		newAdmissionsOperation(client, webhook.OperationReject, "Deny a model that is held or in work, for good",
			`Reject denies a model that is held or in work. Pushed again to its repository, in the same package or another, it is denied (403) with the same reason,
under any policy, until somebody retries it.`),
		newAdmissionsOperation(client, webhook.OperationRetry, "Give a held or rejected model another try",
			`Retry sends a held or rejected model on its way again, from the policy's decision on.`))
	for _, c := range cmd.Commands() {
		c.Args = asUsage(c.Args)
	}
	return cmd
}

// admissionFilter holds the flags that choose admissions.
type admissionFilter struct {
	state, reason, repository, tag, digest string
}

func (f *admissionFilter) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.state, "state", "", "only those in this state, such as held")
	cmd.Flags().StringVar(&f.reason, "reason", "", "only those with this reason, such as no-dataset")
	cmd.Flags().StringVar(&f.repository, "repository", "", "only those of this repository")
	cmd.Flags().StringVar(&f.tag, "tag", "", "only those with this tag")
	cmd.Flags().StringVar(&f.digest, "digest", "", "only those of this digest, pushed or released")
}

func (f *admissionFilter) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"state": f.state, "reason": f.reason, "repository": f.repository, "tag": f.tag, "digest": f.digest} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

type admissionList struct {
	Admissions []webhook.View `json:"admissions"`
	Total      int            `json:"total"`
}

func newAdmissionsList(client *apiClient) *cobra.Command {
	var filter admissionFilter
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List admissions, newest first",
		Example: `  grindstone admissions list
  grindstone admissions list --state held --repository models/resnet
  grindstone admissions list --json | jq -r '.admissions[].id'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, list := filter.query(), admissionList{}
			query.Set("limit", strconv.Itoa(limit))
			if err := client.get(cmd.Context(), "/api/v1/admissions", query, &list); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return printAdmissions(cmd.OutOrStdout(), list)
		},
	}
	filter.flags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 100, "at most this many, up to 1000")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printAdmissions(w io.Writer, list admissionList) error {
	if len(list.Admissions) == 0 {
		_, err := fmt.Fprintln(w, "no admissions")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tREPOSITORY\tTAG\tSTATE\tREASON\tAGE")
	for _, a := range list.Admissions {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", a.ID, a.Source.Repository, orDash(newestTag(a)), stateWord(a), orDash(string(a.Reason)), ago(a.CreatedAt))
	}
	if more := list.Total - len(list.Admissions); more > 0 {
		fmt.Fprintf(t, "and %d more: --limit\n", more)
	}
	return t.Flush()
}

// stateWord is the state; what was released without sanitizing says so, and what nobody works on.
func stateWord(a webhook.View) string {
	switch {
	case a.State == webhook.Released && a.Unsanitized():
		return "released (approved)"
	case a.Waits:
		return string(a.State) + " (waits for a worker)"
	}
	return string(a.State)
}

// tagWord says what became of a tag that was pushed.
func tagWord(a webhook.View, t webhook.Tag) string {
	switch {
	case t.Moved:
		return "points at the released model"
	case a.State == webhook.Denied:
		return "stays what it was"
	}
	return "waits"
}

func newestTag(a webhook.View) string {
	if len(a.Tags) == 0 {
		return ""
	}
	return a.Tags[len(a.Tags)-1].Name
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func newAdmissionsShow(client *apiClient) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one admission: what was pushed, decided, measured and released",
		Example: `  grindstone admissions show 0199c2f4-8d1e-7aaa-9c55-0d6f0f4d7c11
  grindstone admissions show 0199c2f4-8d1e-7aaa-9c55-0d6f0f4d7c11 --json | jq .report.after`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return showAdmission(cmd, client, args[0], asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func showAdmission(cmd *cobra.Command, client *apiClient, id string, asJSON bool) error {
	var raw json.RawMessage
	if err := client.get(cmd.Context(), "/api/v1/admissions/"+url.PathEscape(id), nil, &raw); err != nil {
		return err
	}
	return printAdmission(cmd.OutOrStdout(), raw, asJSON)
}

func printAdmission(w io.Writer, raw json.RawMessage, asJSON bool) error {
	if asJSON {
		return printJSON(w, raw)
	}
	var a webhook.View
	if err := json.Unmarshal(raw, &a); err != nil {
		return err
	}
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-12s "+format+"\n", append([]any{name}, args...)...)
	}
	row("admission", "%s", a.ID)
	row("state", "%s", stateWord(a))
	if a.Reason != "" {
		row("reason", "%s", a.Reason)
	}
	if a.Message != "" {
		row("message", "%s", a.Message)
	}
	row("repository", "%s", a.Source.Repository)
	for _, t := range a.Tags {
		row("tag", "%s, pushed %s, %s", t.Name, t.PushedAt.Format(time.RFC3339), tagWord(a, t))
	}
	row("pushed", "%s", a.Source.Digest)
	if a.Source.Identity != "" {
		row("pushed by", "%s", a.Source.Identity)
	}
	for _, m := range a.Source.Models {
		row("model", "%s, %d bytes, %s", m.Name, m.Size, m.Digest)
	}
	if d := a.Decision; d != nil {
		row("decision", "%s", strings.Join(append([]string{string(d.Action), d.Transformation, d.Dataset}, d.Reasons...), " "))
	}
	if r := a.Report; r != nil {
		row("accuracy", "%.1f %% before, %.1f %% after (%d clean images)", 100*r.Before.CDA.Value, 100*r.After.CDA.Value, r.After.CDA.Count)
	}
	for _, m := range a.Further {
		row("accuracy", "%s: %.1f %% before, %.1f %% after", m.Name, 100*m.Report.Before.CDA.Value, 100*m.Report.After.CDA.Value)
	}
	if t := a.Twin; t != nil {
		row("sanitized", "with the same files in admission %s", t.Admission)
	}
	for _, o := range a.Operations {
		row(o.Action, "by %s at %s: %s", o.By, o.At.Format(time.RFC3339), orDash(o.Reason))
	}
	if r := a.Released; r != nil && a.State == webhook.Released {
		row("released", "%s", r.Digest)
		row("attestation", "%s", orDash(r.Attestation))
	}
	return nil
}

func newAdmissionsOperation(client *apiClient, action, short, long string) *cobra.Command {
	var reason string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     action + " ID --reason TEXT",
		Short:   short,
		Long:    long + "\n\nThe decision is kept in the admission's record and in the server's log, with who made it.",
		Example: `  grindstone admissions ` + action + ` 0199c2f4-8d1e-7aaa-9c55-0d6f0f4d7c11 --reason "see TICKET-7"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" && action != webhook.OperationRetry {
				return usageError("%s needs a reason: --reason TEXT; it is kept with the decision", action)
			}
			var raw json.RawMessage
			err := client.exchange(cmd.Context(), http.MethodPost, "/api/v1/admissions/"+url.PathEscape(args[0])+"/"+action, nil,
				map[string]string{"reason": strings.TrimSpace(reason)}, &raw)
			if err != nil {
				return err
			}
			return printAdmission(cmd.OutOrStdout(), raw, asJSON)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, in a sentence")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newAdmissionsLogs(client *apiClient) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "logs ID",
		Short: "Print what happened to an admission, and what its sanitizer said",
		Example: `  grindstone admissions logs 0199c2f4-8d1e-7aaa-9c55-0d6f0f4d7c11
  grindstone admissions watch 0199c2f4-8d1e-7aaa-9c55-0d6f0f4d7c11    # as it happens`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := client.do(cmd.Context(), http.MethodGet, "/api/v1/admissions/"+url.PathEscape(args[0])+"/logs", nil, nil)
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			if asJSON {
				_, err := io.Copy(cmd.OutOrStdout(), answer.Body)
				return err
			}
			for d := json.NewDecoder(answer.Body); ; {
				var line webhook.LogLine
				if err := d.Decode(&line); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				indent := "  "
				if line.State != "" {
					indent = ""
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s %s%s\n", line.At.Format("2006-01-02T15:04:05.000Z"), indent, line.Text)
			}
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}
