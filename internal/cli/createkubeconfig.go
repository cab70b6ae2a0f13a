package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth/internal/kubeconfig"
)

func (a *app) createKubeconfigCommand() *cobra.Command {
	var o kubeconfig.Options
	cmd := &cobra.Command{
		Use:   "create-kubeconfig",
		Short: "Make a kubeconfig that may do in one namespace just what Berth needs",
		Long: `Make a namespace with a service account whose role grants exactly the verbs that
Berth uses, and a kubeconfig for it. It is run once by somebody who may create
these on the cluster, with their own kubeconfig (KUBECONFIG, then ~/.kube/config).
No kubectl is needed. Run again it changes nothing that is as it should be.
With --revoke it takes back what it made.`,
		Example: `  berth create-kubeconfig --namespace berth -o kubeconfig
  berth create-kubeconfig --dry-run | less
  berth create-kubeconfig --ttl 24h -o kubeconfig
  berth create-kubeconfig --revoke --namespace berth`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if ctx == nil {
				ctx = context.Background()
			}
			ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			return kubeconfig.Create(ctx, o, a.stdout, a.stderr)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.Namespace, "namespace", "n", "berth", "namespace to grant access to; made when it is missing")
	flags.StringVarP(&o.Output, "output", "o", "./kubeconfig", "file to write, with mode 0600")
	flags.StringSliceVar(&o.Profiles, "profile", []string{"tasks"}, "what to grant: tasks, functions, clusters, metrics, proxy, data")
	flags.DurationVar(&o.TTL, "ttl", 0, "make a token that expires after this long, in place of one that doesn't; Berth renews it")
	flags.BoolVar(&o.NoRenewal, "no-renewal", false, "with --ttl: nobody can renew the token")
	flags.BoolVar(&o.DryRun, "dry-run", false, "print the manifests and contact no cluster")
	flags.BoolVar(&o.Rotate, "rotate", false, "replace the token: the one before stops working")
	flags.BoolVar(&o.Revoke, "revoke", false, "take back everything that was granted: every token stops working")
	flags.BoolVar(&o.Force, "force", false, "overwrite the file")
	flags.StringVar(&o.AdminKubeconfig, "kubeconfig", "", "your own kubeconfig (default KUBECONFIG, then ~/.kube/config)")
	flags.StringVar(&o.AdminContext, "context", "", "context of your own kubeconfig (default: its current one)")
	return cmd
}
