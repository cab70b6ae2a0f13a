// Package build makes the image of a package: layers put upon a base image,
// which needs nothing but berth, or a build by a Docker Engine where commands
// have to be run. Both end in the same image: the base, the package's files,
// the agent, and the description that travels as an annotation. The same
// source makes the same layers, and so the same digest.
package build

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/images"
	"github.com/berth-run/berth/internal/pack"
)

// The builders.
const (
	Auto   = "auto"   // layers where no command has to be run, docker otherwise
	Layers = "layers" // layers upon the base image; runs nothing
	Docker = "docker" // a Docker Engine
)

// Options say how to build.
type Options struct {
	Builder   string   // Auto when empty
	Base      string   // instead of the package's own; see base
	Platforms []string // such as linux/amd64; this machine's when empty
	Cache     string   // folder for layers of base images; none when empty
	Agent     func(platform string) ([]byte, error)
	Progress  func(line string) // what is being done, a line each; may be nil
}

// Built is what a build made: an image, or an index of several platforms'.
type Built struct {
	Image   remote.Taggable
	Digest  string
	Builder string
	Package berth.Package
}

func (o *Options) say(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// Build makes the image of a package. Errors are CodeInvalid with the line of
// container.yml where that is what's wrong.
func Build(ctx context.Context, d *pack.Definition, o Options) (*Built, error) {
	builder, why, err := choose(ctx, d, o.Builder)
	if err != nil {
		return nil, err
	}
	o.say("building %s@%s %s", d.Package.Name, d.Package.Version, why)
	platforms := o.Platforms
	if len(platforms) == 0 {
		platforms = []string{"linux/" + runtime.GOARCH}
	}
	files, err := collect(d)
	if err != nil {
		return nil, err
	}
	var made []v1.Image
	for _, platform := range platforms {
		p, err := v1.ParsePlatform(platform)
		if err != nil || p.OS != "linux" || p.Architecture == "" {
			return nil, berth.Errorf(berth.CodeInvalid, "platform %q: write linux/ARCH, such as linux/amd64", platform)
		}
		var image v1.Image
		if builder == Docker {
			image, err = byDocker(ctx, d, o, p, files)
		} else {
			image, err = byLayers(ctx, d, o, p, files)
		}
		if err == nil {
			image, err = finish(image, d, o, platform)
		}
		if err != nil {
			return nil, err
		}
		made = append(made, image)
	}
	return assemble(d, builder, platforms, made)
}

// choose finds the builder and says why it is that one.
func choose(ctx context.Context, d *pack.Definition, wanted string) (builder, why string, err error) {
	needs := ""
	switch {
	case len(d.Install) > 0:
		needs = fmt.Sprintf("install (%s:%d)", d.Path, d.Install[0].Line)
	case len(d.Unpack) > 0:
		needs = fmt.Sprintf("unpack (%s:%d)", d.Path, d.Unpack[0].Line)
	case len(d.Dependencies) > 0:
		needs = "dependencies (" + strings.Join(d.Dependencies, ", ") + ")"
	}
	switch wanted {
	case "", Auto:
		if needs == "" {
			return Layers, "without Docker: there is nothing to be run", nil
		}
		if err := engineThere(ctx); err != nil {
			return "", "", berth.Errorf(berth.CodeUnavailable, "package %s has %s to be run, which needs a Docker Engine, and there is none: start it, or name it in DOCKER_HOST; or use a base image that has what is needed: %w", d.Package.Name, needs, err)
		}
		return Docker, "with Docker, to run " + needs, nil
	case Layers:
		if needs != "" {
			return "", "", berth.Errorf(berth.CodeInvalid, "--builder layers can't run %s: use --builder docker, or a base image that has what is needed", needs)
		}
		return Layers, "without Docker, as asked for", nil
	case Docker:
		if err := engineThere(ctx); err != nil {
			return "", "", berth.Errorf(berth.CodeUnavailable, "there is no Docker Engine: start it, or name it in DOCKER_HOST: %w", err)
		}
		return Docker, "with Docker, as asked for", nil
	}
	return "", "", berth.Errorf(berth.CodeInvalid, "--builder %s: choose auto, layers or docker", wanted)
}

// byLayers puts the package's files upon the base image.
func byLayers(ctx context.Context, d *pack.Definition, o Options, p *v1.Platform, files []entry) (v1.Image, error) {
	base, err := baseImage(ctx, d, o, p)
	if err != nil {
		return nil, err
	}
	layer, size, err := filesLayer(d.Package.WorkDir, files)
	if err != nil {
		return nil, err
	}
	o.say("files: %d, %s", len(files), humanSize(size))
	image, err := mutate.Append(base, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: "files of package " + d.Package.Name}})
	if err != nil {
		return nil, err
	}
	return configured(image, func(config *v1.ConfigFile) {
		config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
		for _, v := range d.Environment {
			config.Config.Env = setEnv(config.Config.Env, v.Name, expand(v.Value, config.Config.Env))
		}
	})
}

// configured is an image with its configuration changed.
func configured(image v1.Image, change func(*v1.ConfigFile)) (v1.Image, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	change(config)
	return mutate.ConfigFile(image, config)
}

// finish adds the agent and the description, and makes the agent what starts.
func finish(image v1.Image, d *pack.Definition, o Options, platform string) (v1.Image, error) {
	program, err := o.Agent(platform)
	if err != nil {
		return nil, err
	}
	description, err := json.Marshal(&d.Package)
	if err != nil {
		return nil, err
	}
	let, err := agentLayer(program)
	if err != nil {
		return nil, err
	}
	described, err := descriptionLayer(description)
	if err != nil {
		return nil, err
	}
	image, err = mutate.Append(image, mutate.Addendum{Layer: let, History: v1.History{CreatedBy: "berth package build: agent"}},
		mutate.Addendum{Layer: described, History: v1.History{CreatedBy: "berth package build: description"}})
	if err != nil {
		return nil, err
	}
	image, err = configured(image, func(config *v1.ConfigFile) {
		config.Author, config.Created, config.Container = "", v1.Time{Time: stamp}, ""
		config.DockerVersion = "" //nolint:staticcheck // deprecated, and yet in what an old Engine makes
		config.Config.Entrypoint, config.Config.Cmd = []string{agent.Path}, nil
		config.Config.WorkingDir, config.Config.Hostname, config.Config.Image = d.Package.WorkDir, "", ""
		for i := range config.History {
			config.History[i].Created = v1.Time{Time: stamp}
		}
	})
	if err != nil {
		return nil, err
	}
	// Annotations are OCI's; what the base was doesn't matter.
	image = mutate.ConfigMediaType(mutate.MediaType(image, types.OCIManifestSchema1), types.OCIConfigJSON)
	annotations, err := annotate(d)
	if err != nil {
		return nil, err
	}
	return mutate.Annotations(image, annotations).(v1.Image), nil
}

func annotate(d *pack.Definition) (map[string]string, error) {
	description, err := json.Marshal(&d.Package)
	if err != nil {
		return nil, err
	}
	annotations := map[string]string{
		images.Annotation:                  string(description),
		"org.opencontainers.image.title":   d.Package.Name,
		"org.opencontainers.image.version": d.Package.Version,
	}
	if d.Package.Description != "" {
		annotations["org.opencontainers.image.description"] = d.Package.Description
	}
	return annotations, nil
}

// assemble makes one thing of the images of all platforms.
func assemble(d *pack.Definition, builder string, platforms []string, made []v1.Image) (*Built, error) {
	out := &Built{Builder: builder, Package: d.Package, Image: made[0]}
	digest, err := made[0].Digest()
	if len(made) > 1 {
		index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		for i, image := range made {
			platform, err := v1.ParsePlatform(platforms[i])
			if err != nil {
				return nil, err
			}
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
		}
		annotations, err := annotate(d)
		if err != nil {
			return nil, err
		}
		index = mutate.Annotations(index, annotations).(v1.ImageIndex)
		out.Image = index
		if digest, err = index.Digest(); err != nil {
			return nil, err
		}
	}
	out.Digest = digest.String()
	out.Package.Digest, out.Package.Platforms = out.Digest, slices.Clone(platforms)
	return out, err
}

func setEnv(env []string, name, value string) []string {
	for i := range env {
		if strings.HasPrefix(env[i], name+"=") {
			env[i] = name + "=" + value
			return env
		}
	}
	return append(env, name+"="+value)
}

// humanSize is a size for a person.
func humanSize(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}
