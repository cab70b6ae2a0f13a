package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/config"
	"github.com/berth-run/berth/internal/kubeconfig"
)

func (a *app) infraCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "infra", Short: "Add, list, check and remove infrastructures", Aliases: []string{"infrastructure"},
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.infraAddCommand(), a.infraListCommand(), a.infraCheckCommand(), a.infraDFSCommand(), a.infraRemoveCommand())
	return cmd
}

func (a *app) infraAddCommand() *cobra.Command {
	var source berth.InfrastructureSource
	cmd := &cobra.Command{
		Use: "add NAME (--kubeconfig FILE | --docker [ADDRESS])", Short: "Add a namespace or a Docker Engine to infra.yml",
		Example: "  berth infra add site-a --kubeconfig ./kubeconfig\n  berth infra add here --docker",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && cmd.Flags().Changed("docker") {
				return nil // --docker ADDRESS, where --docker alone is the usual socket
			}
			return exactly(1, "a name for the infrastructure")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			source.Name = args[0]
			if err := addressed(cmd, args, &source); err != nil {
				return err
			}
			if err := a.bring(&source); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				if err := service.AddInfrastructure(ctx, source); err != nil {
					return err
				}
				fmt.Fprintf(a.stderr, "berth: added %s; see whether it has what tasks need: berth infra check %s\n", source.Name, source.Name)
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&source.Address, "docker", "", "a Docker Engine, by its `address` (default: the socket /var/run/docker.sock)")
	flags.Lookup("docker").NoOptDefVal = usualSocket
	flags.StringVar(&source.Kubeconfig, "kubeconfig", "", "kubeconfig that grants access to the namespace")
	flags.StringVar(&source.Context, "context", "", "context of the kubeconfig (default: its current one)")
	flags.StringVarP(&source.Namespace, "namespace", "n", "", "namespace (default: the context's own)")
	return cmd
}

// usualSocket stands for --docker without an address.
const usualSocket = "socket"

// addressed says where a new entry leads: to a namespace or a Docker Engine.
func addressed(cmd *cobra.Command, args []string, source *berth.InfrastructureSource) error {
	if !cmd.Flags().Changed("docker") {
		if source.Kubeconfig == "" {
			return fmt.Errorf("--kubeconfig is missing: name the file that grants access to the namespace (berth create-kubeconfig makes one); or --docker for a Docker Engine")
		}
		path, err := filepath.Abs(source.Kubeconfig)
		source.Kubeconfig = path
		return err
	}
	if source.Kubeconfig != "" || source.Context != "" || source.Namespace != "" {
		return fmt.Errorf("--docker is for a Docker Engine, which has no kubeconfig, context or namespace")
	}
	source.Kind = berth.KindDocker
	if source.Address == usualSocket {
		source.Address = ""
	}
	if len(args) == 2 {
		source.Address = args[1]
	}
	return nil
}

// bring makes a kubeconfig one that whoever keeps infra.yml can use: its path
// (as it is) where that is this machine, its content where it is a server.
func (a *app) bring(source *berth.InfrastructureSource) error {
	if a.serverAddress() == "" || source.Kind == berth.KindDocker {
		return nil
	}
	content, err := kubeconfig.SelfContained(source.Kubeconfig, source.Context)
	if err != nil {
		return err
	}
	source.Kubeconfig, source.Content = "", berth.Secret(content)
	return nil
}

func (a *app) completeInfrastructures(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if a.serverAddress() != "" {
		_ = a.with(cmd, func(ctx context.Context, service berth.Service) error {
			list, err := service.Infrastructures(ctx)
			for _, i := range list {
				names = append(names, i.Name)
			}
			return err
		})
	} else if path, err := config.Locate(a.infra); err == nil {
		// The file alone: asking the host would connect to every cluster.
		if file, err := config.Load(path); err == nil {
			for _, entry := range file.Infrastructures {
				names = append(names, entry.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) infraRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "Take an infrastructure out of infra.yml", Aliases: []string{"rm"}, Args: exactly(1, "the name of an infrastructure"),
		ValidArgsFunction: a.completeInfrastructures,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				if err := service.RemoveInfrastructure(ctx, args[0], force); err != nil {
					return err
				}
				fmt.Fprintf(a.stderr, "berth: removed %s\n", args[0])
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also while tasks of it have not ended; they stay as they are")
	return cmd
}

func (a *app) infraListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List infrastructures and how they stand", Aliases: []string{"ls"}, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				list, err := service.Infrastructures(ctx)
				if err != nil {
					return err
				}
				if len(list) == 0 && a.output == "table" {
					fmt.Fprintln(a.stderr, "berth: there are none yet: berth infra add NAME --kubeconfig FILE")
				}
				return a.print(list, func(w io.Writer) { infraTable(w, list) })
			})
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func infraTable(w io.Writer, list []berth.Infrastructure) {
	shared := slices.ContainsFunc(list, func(i berth.Infrastructure) bool { return i.Holder != nil })
	header := []string{"NAME", "STATE", "KIND", "NAMESPACE", "ADDRESS", "VERSION", "TASKS", "QUEUED", "SEEN", "WHY"}
	if shared {
		header = slices.Insert(header, len(header)-1, "HOLDER")
	}
	row(w, header...)
	for _, i := range list {
		name, version, seen, why := i.Name, "", "", ""
		if i.Default {
			name += " *"
		}
		if i.ServerVersion != nil {
			version = *i.ServerVersion
		}
		if i.LastSeenAt != nil {
			seen = age(*i.LastSeenAt) + " ago"
		}
		if i.Reason != nil {
			why = oneLine(*i.Reason)
		}
		cells := []string{name, string(i.State), i.Kind, i.Namespace, i.Address, version, fmt.Sprint(i.LiveTasks), fmt.Sprint(i.QueuedTasks), seen}
		if shared {
			holder := "-" // nobody, for the moment
			if i.Holder != nil {
				holder = *i.Holder
			}
			cells = append(cells, holder)
		}
		row(w, append(cells, why)...)
	}
}
