package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/build"
	"github.com/berth-run/berth/internal/images"
)

// agentPackage is the repository of the agent's image, which load takes too.
const agentPackage = "berth/let"

func (a *app) packagePushCommand() *cobra.Command {
	return &cobra.Command{
		Use: "push NAME[@VERSION] REGISTRY", Short: "Copy a package to another registry",
		Long: `Copy a package from Berth's own registry to another: HOST[:PORT][/PREFIX], with the
credentials of docker's configuration (docker login), or https://HOST:PORT of a berth
server, with --token and --ca-file. What is there already is not sent again, so a
push that broke off goes on where it was.

An infrastructure with registry: gets what is called there by itself. berth/let is
Berth's agent, for agent_image: in infra.yml.`,
		Example: `  berth package push arithmetic@1.0.0 registry.example:5000/team
  BERTH_TOKEN_FILE=token berth package push arithmetic https://berth.example.org:7070`,
		Args: exactly(2, "a package and a registry"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, version, err := packageName(args[0])
			if err != nil {
				return err
			}
			return a.between(cmd, args[1], func(ctx context.Context, store, to *images.Store) error {
				called := images.Remote(strings.TrimPrefix(args[1], "https://"), nil) // by those who pull from there
				if name == agentPackage {                                             // which is in this program, and in no registry before
					digest, err := build.PushAgent(ctx, to, agentPackage)
					if err != nil {
						return err
					}
					fmt.Fprintf(a.stderr, "berth: pushed %s to %s\n", name, args[1])
					fmt.Fprintln(a.stdout, called.Reference(name, digest))
					return nil
				}
				p, err := store.Inspect(ctx, name, version)
				if err != nil {
					return err
				}
				updates, finish := a.pushProgress()
				_, err = images.Copy(ctx, store, to, name, p, updates)
				finish()
				if err != nil {
					return err
				}
				fmt.Fprintf(a.stderr, "berth: pushed %s@%s to %s\n", name, p.Version, args[1])
				fmt.Fprintln(a.stdout, called.Reference(name, p.Digest))
				return nil
			})
		},
	}
}

// between calls fn with Berth's own registry and with another: that of a berth
// server, one of HOST[:PORT][/PREFIX], or the own one again where it isn't named.
func (a *app) between(cmd *cobra.Command, registry string, fn func(ctx context.Context, own, other *images.Store) error) error {
	if strings.HasPrefix(registry, "http://") {
		return fmt.Errorf("registry %s: write HOST[:PORT][/PREFIX], or https://HOST:PORT for a berth server", registry)
	}
	server := strings.HasPrefix(registry, "https://")
	a.remote.also = server
	return a.packages(cmd, func(ctx context.Context, _ berth.Service, own *images.Store) error {
		switch {
		case registry == "":
			return fn(ctx, own, own)
		case !server:
			return fn(ctx, own, images.Remote(registry, nil))
		}
		service, err := a.dial(registry)
		if err != nil {
			return err
		}
		defer service.Close()
		other, err := images.Of(service)
		if err != nil {
			return err
		}
		return fn(ctx, own, other)
	})
}

func (a *app) packagePullCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "pull NAME[@VERSION] [REGISTRY]", Short: "Copy a package from another registry into Berth's own, or into a file",
		Example: `  berth package pull arithmetic registry.example:5000/team
  BERTH_TOKEN_FILE=token berth package pull arithmetic https://berth.example.org:7070
  berth package pull arithmetic@1.0.0 --file arithmetic.tar`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return fmt.Errorf("%s takes a package, and a registry unless --file is given; see %s --help", cmd.CommandPath(), cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name, version, err := packageName(args[0])
			if err != nil {
				return err
			}
			if len(args) == 1 && file == "" {
				return fmt.Errorf("say where from, as in berth package pull %s registry.example:5000, or where to: --file %s.tar", args[0], name)
			}
			registry := ""
			if len(args) == 2 {
				registry = args[1]
			}
			return a.between(cmd, registry, func(ctx context.Context, store, from *images.Store) error {
				if file != "" {
					p, err := from.Pull(ctx, name, version, file)
					if err == nil {
						fmt.Fprintf(a.stderr, "berth: wrote %s@%s to %s\n", name, p.Version, file)
					}
					return err
				}
				p, err := from.Inspect(ctx, name, version)
				if err != nil {
					return err
				}
				updates, finish := a.pushProgress()
				_, err = images.Copy(ctx, from, store, name, p, updates)
				finish()
				if err == nil {
					fmt.Fprintf(a.stderr, "berth: pulled %s@%s\n", name, p.Version)
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "write an OCI archive instead")
	return cmd
}

func (a *app) packageLoadCommand() *cobra.Command {
	var into string
	cmd := &cobra.Command{
		Use: "load NAME[@VERSION] --into TARGET", Short: "Bring a package to a cluster or Docker Engine that has no registry",
		Long: `Bring a package to where there is no registry to pull from:

  localkube[:CLUSTER]   a cluster of localkube on this machine
  kind[:CLUSTER]        a cluster of kind on this machine
  docker                the Docker Engine of this machine, or of DOCKER_HOST

berth package load berth/let brings Berth's agent, which runs the steps of a task.
The reference that is printed is what agent_image: in infra.yml takes. A Docker
Engine that is an infrastructure without registry: gets packages by itself.`,
		Args: exactly(1, "the name of a package"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, version, err := packageName(args[0])
			if err != nil {
				return err
			}
			target, cluster, _ := strings.Cut(into, ":")
			if target != "localkube" && target != "kind" && target != "docker" || target == "docker" && cluster != "" {
				return fmt.Errorf("--into %q: choose localkube[:CLUSTER], kind[:CLUSTER] or docker", into)
			}
			return a.packages(cmd, func(ctx context.Context, _ berth.Service, store *images.Store) error {
				var digest string
				if name == agentPackage {
					digest, err = build.PushAgent(ctx, store, agentPackage)
				} else {
					var p berth.Package
					p, err = store.Inspect(ctx, name, version)
					digest = p.Digest
				}
				if err != nil {
					return err
				}
				reference, err := a.load(ctx, store, name, digest, target, cluster)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.stderr, "berth: loaded %s into %s\n", name, into)
				fmt.Fprintln(a.stdout, reference)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&into, "into", "", "localkube[:CLUSTER], kind[:CLUSTER] or docker")
	_ = cmd.MarkFlagRequired("into")
	_ = cmd.RegisterFlagCompletionFunc("into", cobra.FixedCompletions([]string{"localkube", "kind", "docker"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// load hands an archive to the tool of the target, and returns the reference
// that containers are made from there.
func (a *app) load(ctx context.Context, store *images.Store, name, digest, target, cluster string) (string, error) {
	reference := images.LocalHost + "/" + name + "@" + digest
	if target == "docker" {
		image, err := store.Image(ctx, name, digest, "linux/"+goarch)
		if err != nil {
			return "", err
		}
		return images.LoadTag(name, digest), build.Load(ctx, images.LoadTag(name, digest), image)
	}
	folder, err := os.MkdirTemp("", "berth-load-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "image.tar")
	names := []string{reference}
	if target == "kind" {
		names = []string{images.LoadTag(name, digest), reference} // kind wants a tag, and never latest
	}
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	err = store.Archive(ctx, file, name, digest, names...)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return "", err
	}
	tool, args := "localkube", []string{"load"}
	if cluster != "" {
		args = append(args, "--name", cluster)
	}
	args = append(args, path)
	if target == "kind" {
		tool, args = "kind", []string{"load", "image-archive", path}
		if cluster != "" {
			args = append(args, "--name", cluster)
		}
	}
	program, err := findTool(tool)
	if err != nil {
		return "", err
	}
	output, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", berth.Errorf(berth.CodeUnavailable, "%s could not load the image: %w: %s", tool, err, strings.TrimSpace(string(output)))
	}
	return reference, nil
}

// findTool finds a program in PATH or beside this one.
func findTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if self, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(self), name); exists(path) {
			return path, nil
		}
	}
	return "", berth.Errorf(berth.CodeNotFound, "there is no program %s here, which brings images into its clusters: install it, or push the package to a registry instead", name)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
