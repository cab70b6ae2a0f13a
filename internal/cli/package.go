package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/images"
)

func (a *app) packageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "package", Short: "Build, test and share packages of functions", Aliases: []string{"packages"},
		Long: "A package is code with a container.yml, built into one image that offers typed functions. Packages are kept in Berth's own registry; push brings them to another one.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.packageBuildCommand(), a.packageListCommand(), a.packageSearchCommand(), a.packageInspectCommand(), a.packageTestCommand(),
		a.packagePushCommand(), a.packagePullCommand(), a.packageLoadCommand(), a.packageRemoveCommand())
	return cmd
}

// packages runs a verb on Berth's own registry.
func (a *app) packages(cmd *cobra.Command, fn func(context.Context, berth.Service, *images.Store) error) error {
	return a.with(cmd, func(ctx context.Context, service berth.Service) error {
		store, err := images.Of(service)
		if err != nil {
			return err
		}
		return fn(ctx, service, store)
	})
}

// packageName reads NAME[@VERSION].
func packageName(text string) (name, version string, err error) {
	name, version, found := strings.Cut(text, "@")
	if name == "" || found && version == "" {
		return "", "", fmt.Errorf("package %q: write NAME or NAME@VERSION", text)
	}
	return name, version, nil
}

func (a *app) packageListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the packages of Berth's own registry", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listPackages(cmd, "", "") },
	}
	a.outputFlag(cmd)
	return cmd
}

func (a *app) packageSearchCommand() *cobra.Command {
	var registry string
	cmd := &cobra.Command{
		Use: "search [WORD...]", Short: "Find packages by words of their name, description and functions",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.listPackages(cmd, strings.Join(args, " "), registry)
		},
	}
	cmd.Flags().StringVar(&registry, "registry", "", "look in this registry, HOST[:PORT][/PREFIX], instead of Berth's own")
	a.outputFlag(cmd)
	return cmd
}

func (a *app) listPackages(cmd *cobra.Command, text, registry string) error {
	show := func(ctx context.Context, store *images.Store) error {
		packages, err := store.List(ctx, text)
		if err != nil {
			return err
		}
		return a.print(packages, func(w io.Writer) {
			row(w, "NAME", "VERSION", "FUNCTIONS", "SIZE", "DIGEST", "DESCRIPTION")
			for i := range packages {
				p := &packages[i]
				var functions []string
				for j := range p.Functions {
					functions = append(functions, p.Functions[j].Name)
				}
				row(w, p.Name, p.Version, strings.Join(functions, ","), size(p.Size), shortDigest(p.Digest), oneLine(p.Description))
			}
		})
	}
	if registry != "" {
		return show(cmd.Context(), images.Remote(registry, nil))
	}
	return a.packages(cmd, func(ctx context.Context, _ berth.Service, store *images.Store) error { return show(ctx, store) })
}

func (a *app) packageInspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "inspect NAME[@VERSION]", Short: "Show what a package offers", Args: exactly(1, "the name of a package"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, version, err := packageName(args[0])
			if err != nil {
				return err
			}
			return a.packages(cmd, func(ctx context.Context, _ berth.Service, store *images.Store) error {
				p, err := store.Inspect(ctx, name, version)
				if err != nil {
					return err
				}
				return a.print(p, func(w io.Writer) { packagePage(w, &p) })
			})
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func packagePage(w io.Writer, p *berth.Package) {
	fmt.Fprintf(w, "Package\t%s@%s\n", p.Name, p.Version)
	if p.Description != "" {
		fmt.Fprintf(w, "Description\t%s\n", oneLine(p.Description))
	}
	fmt.Fprintf(w, "Digest\t%s\n", p.Digest)
	fmt.Fprintf(w, "Platforms\t%s\n", strings.Join(p.Platforms, ", "))
	fmt.Fprintf(w, "Size\t%s\n", size(p.Size))
	for name, class := range sorted(p.Types) {
		fmt.Fprintf(w, "Type\t%s{%s}\n", name, parameters(class.Properties))
	}
	for i := range p.Functions {
		f := &p.Functions[i]
		fmt.Fprintf(w, "Function\t%s\n", signature(f))
		if f.Description != "" {
			fmt.Fprintf(w, "\t  %s\n", oneLine(f.Description))
		}
	}
}

// signature is a function as a person reads it: add(a: integer, b: integer) → sum: integer.
func signature(f *berth.Function) string {
	text := f.Name + "(" + parameters(f.Inputs) + ")"
	if len(f.Outputs) > 0 {
		text += " → " + parameters(f.Outputs)
	}
	return text
}

func parameters(list []berth.Parameter) string {
	var words []string
	for i := range list {
		p := &list[i]
		text := p.Name + ": " + p.Type
		if p.Secret {
			text += " secret"
		}
		switch {
		case len(p.Default) > 0 && !p.Secret:
			text += " = " + string(p.Default)
		case p.Optional:
			text += " optional"
		}
		words = append(words, text)
	}
	return strings.Join(words, ", ")
}

func (a *app) packageRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME@VERSION...", Short: "Remove versions of packages from Berth's own registry", Args: atLeast(1, "a package with its version, such as arithmetic@1.0.0"),
		Long: "Remove versions of packages from Berth's own registry. Tasks that run go on; a task that has still to start needs the image in its infrastructure. The disk space is freed by a server once nothing was pushed for an hour.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.packages(cmd, func(ctx context.Context, _ berth.Service, store *images.Store) error {
				for _, arg := range args {
					name, version, err := packageName(arg)
					if err != nil {
						return err
					}
					if version == "" {
						return fmt.Errorf("package %s: name the version to remove, such as %s@1.0.0", name, name)
					}
					if err := store.Remove(ctx, name, version); err != nil {
						return err
					}
					fmt.Fprintf(a.stderr, "berth: removed %s@%s\n", name, version)
				}
				return nil
			})
		},
	}
}

func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f kB", float64(n)/1e3)
}

func shortDigest(digest string) string {
	if rest, ok := strings.CutPrefix(digest, "sha256:"); ok && len(rest) > 12 {
		return rest[:12]
	}
	return digest
}
