package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agentbin"
	"github.com/berth-run/berth/internal/build"
	"github.com/berth-run/berth/internal/images"
	"github.com/berth-run/berth/internal/pack"
)

func (a *app) packageBuildCommand() *cobra.Command {
	o := build.Options{Agent: agentbin.Binary}
	cmd := &cobra.Command{
		Use: "build DIR|container.yml", Short: "Build a package into an image, and keep it in Berth's own registry",
		Long: `Build a package into an image, and keep it in Berth's own registry.

Where container.yml has no dependencies, install or unpack lines, nothing has to be
run, and no Docker is needed: the package's files are put upon the base image. The
same files make the same digest. Otherwise a Docker Engine builds (DOCKER_HOST, or
the one of this machine).`,
		Example: `  berth package build examples/arithmetic-python
  berth package build . --base ./python.tar --platform linux/amd64,linux/arm64`,
		Args: exactly(1, "the folder of a package, or its container.yml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			definition, err := pack.Load(args[0])
			if err != nil {
				return err
			}
			for _, warning := range definition.Warnings {
				fmt.Fprintln(a.stderr, "berth: warning: "+oneLine(warning))
			}
			return a.packages(cmd, func(ctx context.Context, _ berth.Service, store *images.Store) error {
				return a.build(ctx, store, definition, o)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Builder, "builder", build.Auto, "auto, layers (runs nothing) or docker")
	flags.StringVar(&o.Base, "base", "", "base image instead of the package's own: an image of a registry, docker:IMAGE, FILE.tar, rootfs:FILE or scratch")
	flags.StringSliceVar(&o.Platforms, "platform", nil, "platforms to build for, such as linux/amd64,linux/arm64 (default: this machine's)")
	_ = cmd.RegisterFlagCompletionFunc("builder", cobra.FixedCompletions([]string{build.Auto, build.Layers, build.Docker}, cobra.ShellCompDirectiveNoFileComp))
	a.outputFlag(cmd)
	return cmd
}

func (a *app) build(ctx context.Context, store *images.Store, definition *pack.Definition, o build.Options) error {
	o.Progress = func(line string) { fmt.Fprintln(a.stderr, "berth: "+clean(line)) }
	if dir, err := os.UserCacheDir(); err == nil {
		o.Cache = filepath.Join(dir, "berth", "layers")
		if err := os.MkdirAll(o.Cache, 0o700); err != nil {
			o.Cache = ""
		}
	}
	built, err := build.Build(ctx, definition, o)
	if err != nil {
		return err
	}
	p := built.Package
	updates, finish := a.pushProgress()
	_, err = store.Push(ctx, built.Image, p.Name, p.Version, updates)
	finish()
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "berth: built %s@%s; try it: berth package test %s\n", p.Name, p.Version, p.Name)
	return a.print(p, func(w io.Writer) { fmt.Fprintln(w, p.Name+"@"+p.Digest) })
}

// pushProgress shows on a terminal how much of an image was sent, until finish
// is called: a push that never began doesn't close its updates.
func (a *app) pushProgress() (updates chan<- v1.Update, finish func()) {
	sent, over, done := make(chan v1.Update, 64), make(chan struct{}), make(chan struct{})
	width := terminalWidth(a.stderr)
	go func() {
		defer close(done)
		drawn := false
		for more := true; more; {
			var u v1.Update
			select {
			case u, more = <-sent:
			case <-over:
				more = false
			}
			if more && width != nil && u.Error == nil && u.Total > 0 {
				fmt.Fprintf(trusted(a.stderr), "\r\x1b[Kberth: stored %s of %s", size(u.Complete), size(u.Total))
				drawn = true
			}
		}
		if drawn {
			fmt.Fprint(trusted(a.stderr), "\r\x1b[K")
		}
	}()
	return sent, func() {
		close(over)
		<-done
	}
}
