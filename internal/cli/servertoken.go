package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) serverTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Make, list and revoke the tokens of a server", Aliases: []string{"tokens"},
		Long: `Make, list and revoke the tokens of a server: on its machine in the directory of
its infra.yml, running or not, or over the network with the token of an admin.`,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.tokenCreateCommand(), a.tokenListCommand(), a.tokenRevokeCommand())
	return cmd
}

// tokenWithSecret is a token as it is told once, in JSON.
type tokenWithSecret struct {
	berth.Token
	Secret string `json:"token"`
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var r berth.TokenRequest
	var role string
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a token, and print it this once", Args: exactly(1, "a name, which owns what is submitted with the token"),
		Long: `Make a token, and print it this once: what is stored doesn't tell it. NAME owns what
is submitted with it, and sees its own tasks; several tokens may have one name.

  read   sees the name's tasks, infrastructures and metrics, and pulls packages
  write  also submits and cancels tasks, checks infrastructures, pushes packages
  admin  also sees and cancels everyone's tasks, and manages infrastructures and tokens`,
		Example: `  berth server token create ann
  berth server token create ci --role write --on site-a,site-b --ttl 720h
  berth server token create prometheus --role read > /etc/prometheus/berth-token`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name, r.Role = args[0], berth.Role(role)
			if cmd.Flags().Changed("on") && len(r.Infrastructures) == 0 {
				return fmt.Errorf("--on is empty: name infrastructures, or leave it out for all")
			}
			if cmd.Flags().Changed("ttl") && r.TTL == 0 {
				return fmt.Errorf("--ttl 0: use 1s or more, or leave it out for a token that doesn't expire")
			}
			if err := r.Validate(); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				token, err := service.CreateToken(ctx, r)
				if err != nil {
					return err
				}
				if a.output != "table" {
					return a.print(tokenWithSecret{token, token.Secret.Reveal()}, nil)
				}
				fmt.Fprintln(a.stdout, token.Secret.Reveal())
				fmt.Fprintf(a.stderr, "berth: token %s of %s, role %s%s; it is shown this once\n", token.ID, token.Name, token.Role, restrictions(token))
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&role, "role", string(berth.RoleWrite), "what it may do: read, write or admin")
	flags.StringSliceVar(&r.Infrastructures, "on", nil, "only on these infrastructures (default: all)")
	flags.DurationVar(&r.TTL, "ttl", 0, "how long it is good: 720h (default: until it is revoked)")
	a.outputFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"read", "write", "admin"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("on", a.completeInfrastructures)
	return cmd
}

func restrictions(t berth.Token) string {
	text := ""
	if len(t.Infrastructures) > 0 {
		text += ", on " + strings.Join(t.Infrastructures, ", ") + " alone"
	}
	if t.ExpiresAt != nil {
		text += ", until " + t.ExpiresAt.Format(time.RFC3339)
	}
	return text
}

func (a *app) tokenListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List tokens, without their secrets", Aliases: []string{"ls"}, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				tokens, err := service.Tokens(ctx)
				if err != nil {
					return err
				}
				return a.print(tokens, func(w io.Writer) { tokenTable(w, tokens) })
			})
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func tokenTable(w io.Writer, tokens []berth.Token) {
	row(w, "ID", "NAME", "ROLE", "ON", "AGE", "USED", "EXPIRES")
	for _, t := range tokens {
		used, expires := "never", "never"
		if t.LastUsedAt != nil {
			used = age(*t.LastUsedAt) + " ago"
		}
		if t.ExpiresAt != nil {
			if expires = t.ExpiresAt.Format(time.RFC3339); time.Now().After(*t.ExpiresAt) {
				expires = "expired"
			}
		}
		on := "all"
		if len(t.Infrastructures) > 0 {
			on = strings.Join(t.Infrastructures, ",")
		}
		row(w, t.ID, t.Name, string(t.Role), on, age(t.CreatedAt), used, expires)
	}
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID|NAME...", Short: "Make tokens worthless at once", Args: atLeast(1, "the id of a token, or a name for all of its tokens"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				for _, idOrName := range args {
					if err := service.RevokeToken(ctx, idOrName); err != nil {
						return err
					}
					fmt.Fprintf(a.stderr, "berth: revoked %s\n", idOrName)
				}
				return nil
			})
		},
	}
}
