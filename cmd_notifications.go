package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"grindstone/webhook"
)

func newNotificationsCommand() *cobra.Command {
	client := &apiClient{}
	cmd := &cobra.Command{
		Use:   "notifications",
		Short: "See what the server told others, and tell it again",
		Long: `A running server tells every target of its configuration ("notify") about admissions that came to an end, and keeps the history of each
delivery. These commands need the operator's role; while the server has no logins, that is who is on its machine.`,
		Example: `  grindstone notifications list --state failed
  grindstone notifications show      0199c2f4-8d1e-7aaa-9c55-0d6f0f4d7c11.7.chat
  grindstone notifications redeliver 0199c2f4-8d1e-7aaa-9c55-0d6f0f4d7c11.7.chat`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	serverFlags(cmd, client)
	cmd.AddCommand(newNotificationsList(client),
		newNotificationsOne(client, "show", http.MethodGet, "", "Show one delivery: its event and every attempt"),
		newNotificationsOne(client, "redeliver", http.MethodPost, "/redeliver", "Deliver an event again, whatever became of it before"))
	for _, c := range cmd.Commands() {
		c.Args = asUsage(c.Args)
	}
	return cmd
}

func newNotificationsList(client *apiClient) *cobra.Command {
	filter := map[string]*string{"state": new(string), "target": new(string), "admission": new(string)}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List deliveries, newest first",
		Example: `  grindstone notifications list
  grindstone notifications list --target chat --state failed`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			for name, value := range filter {
				if *value != "" {
					query.Set(name, *value)
				}
			}
			var list struct {
				Deliveries []webhook.Delivery `json:"deliveries"`
				Total      int                `json:"total"`
			}
			if err := client.get(cmd.Context(), "/api/v1/notifications", query, &list); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			if len(list.Deliveries) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "no deliveries")
				return err
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "ID\tTARGET\tSTATE\tATTEMPTS\tLAST ANSWER\tAGE")
			for _, d := range list.Deliveries {
				fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", d.ID, d.Target, d.State, len(d.Attempts), lastAnswer(d), ago(d.CreatedAt))
			}
			return t.Flush()
		},
	}
	cmd.Flags().StringVar(filter["state"], "state", "", "only those that are pending, delivered or failed")
	cmd.Flags().StringVar(filter["target"], "target", "", "only those to this target")
	cmd.Flags().StringVar(filter["admission"], "admission", "", "only those about this admission")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func lastAnswer(d webhook.Delivery) string {
	if len(d.Attempts) == 0 {
		return "-"
	}
	switch last := d.Attempts[len(d.Attempts)-1]; {
	case last.Error != "":
		return last.Error
	default:
		return fmt.Sprint(last.Status)
	}
}

// newNotificationsOne makes a command about one delivery.
func newNotificationsOne(client *apiClient, name, method, below, short string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     name + " ID",
		Short:   short,
		Example: "  grindstone notifications " + name + " 0199c2f4-8d1e-7aaa-9c55-0d6f0f4d7c11.7.chat",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var d webhook.Delivery
			if err := client.exchange(cmd.Context(), method, "/api/v1/notifications/"+url.PathEscape(args[0])+below, nil, nil, &d); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), d)
			}
			return printDelivery(cmd.OutOrStdout(), d)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printDelivery(w io.Writer, d webhook.Delivery) error {
	fmt.Fprintf(w, "delivery   %s\ntarget     %s\nadmission  %s\nstate      %s\n", d.ID, d.Target, d.Admission, d.State)
	if !d.NextAt.IsZero() {
		fmt.Fprintf(w, "next       %s\n", d.NextAt.Format("2006-01-02T15:04:05Z"))
	}
	for _, a := range d.Attempts {
		fmt.Fprintf(w, "attempt    %s %.2fs %d %s\n", a.At.Format("2006-01-02T15:04:05Z"), a.Seconds, a.Status, a.Error)
	}
	fmt.Fprintln(w, "event")
	return printJSON(w, d.Event)
}
