package build

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/daemon"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/pack"
)

// engine connects to the Docker Engine that DOCKER_HOST names, or the one of
// this machine.
func engine(ctx context.Context) (*client.Client, error) {
	c, err := client.New(client.FromEnv)
	if err != nil {
		return nil, err
	}
	_, err = c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	return c, err
}

func engineThere(ctx context.Context) error {
	c, err := engine(ctx)
	if c != nil {
		c.Close()
	}
	return err
}

// instruction is a line of a Dockerfile, and where it is from.
type instruction struct {
	text string
	line int    // in container.yml; 0: of no line
	what string // of container.yml
}

// dockerfile writes the build: the environment, the dependencies, the lines
// before the files, the files, and the lines after. It is Brane's order.
func dockerfile(d *pack.Definition, base string) []instruction {
	steps := []instruction{{text: "FROM " + base, what: "base"}, {text: "USER 0:0", what: "base"}} // to install; see byDocker
	for _, v := range d.Environment {
		steps = append(steps, instruction{text: "ENV " + v.Name + "=" + quoted(v.Value), what: "environment"})
	}
	run := func(what, command string, line int) {
		words, _ := json.Marshal([]string{"/bin/sh", "-c", command})
		steps = append(steps, instruction{text: "RUN " + string(words), line: line, what: what})
	}
	if len(d.Dependencies) > 0 {
		names := strings.Join(d.Dependencies, " ")
		run("dependencies", "if command -v apk >/dev/null; then apk add --no-cache "+names+"; else "+
			"apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "+names+" && rm -rf /var/lib/apt/lists/*; fi", 0)
	}
	for _, line := range d.Install {
		run("install", line.Text, line.Line)
	}
	steps = append(steps, instruction{text: "COPY files/ " + d.Package.WorkDir + "/", what: "files"}, instruction{text: "WORKDIR " + d.Package.WorkDir})
	for _, line := range d.Unpack {
		run("unpack", line.Text, line.Line)
	}
	return steps
}

// byDocker has a Docker Engine build the base, the files and what the commands
// make of them.
func byDocker(ctx context.Context, d *pack.Definition, o Options, p *v1.Platform, files []entry) (v1.Image, error) {
	c, err := engine(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	base := baseName(d, o)
	if base, err = engineBase(ctx, c, d, o, p, base); err != nil {
		return nil, err
	}
	steps := dockerfile(d, base)
	tag := "berth-build/" + strings.ToLower(d.Package.Name) + ":" + d.Package.Version + "-" + p.Architecture
	build, stop := context.WithCancel(ctx)
	defer stop()
	result, err := c.ImageBuild(build, buildContext(steps, files), client.ImageBuildOptions{
		Tags: []string{tag}, Remove: true, ForceRemove: true, Platforms: []ocispec.Platform{{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}},
		AuthConfigs: logins(base),
	})
	if err != nil {
		return nil, berth.Errorf(berth.CodeUnavailable, "the Docker Engine does not build: %w", err)
	}
	defer result.Body.Close()
	if err := follow(result.Body, d, o, steps); err != nil {
		return nil, err
	}
	ref, err := name.NewTag(tag)
	if err != nil {
		return nil, err
	}
	image, err := daemon.Image(ref, daemon.WithContext(ctx), daemon.WithClient(c), daemon.WithFileBufferedOpener())
	if err != nil {
		return nil, berth.Errorf(berth.CodeUnavailable, "the Docker Engine built the image and does not give it: %w", err)
	}
	return asUserOf(ctx, c, base, image)
}

// asUserOf gives an image the user of its base: the commands of the build ran
// as root.
func asUserOf(ctx context.Context, c *client.Client, base string, image v1.Image) (v1.Image, error) {
	user := ""
	if base != "scratch" {
		found, err := c.ImageInspect(ctx, base)
		if err != nil {
			return nil, berth.Errorf(berth.CodeUnavailable, "the Docker Engine built upon %s and doesn't have it any more: %w", base, err)
		}
		if found.Config != nil {
			user = found.Config.User
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Config.User = user
	return mutate.ConfigFile(image, config)
}

// logins are docker's own for the registry of a base image.
func logins(base string) map[string]registry.AuthConfig {
	ref, err := name.ParseReference(base)
	if err != nil {
		return nil
	}
	login, err := authn.DefaultKeychain.Resolve(ref.Context().Registry)
	if err != nil || login == authn.Anonymous {
		return nil
	}
	c, err := login.Authorization()
	if err != nil {
		return nil
	}
	host := ref.Context().RegistryStr()
	if host == name.DefaultRegistry {
		host = authn.DefaultAuthKey
	}
	return map[string]registry.AuthConfig{host: {
		Username: c.Username, Password: c.Password, Auth: c.Auth, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken, ServerAddress: host,
	}}
}

// engineBase makes a base that isn't a name of a registry known to the engine.
func engineBase(ctx context.Context, c *client.Client, d *pack.Definition, o Options, p *v1.Platform, base string) (string, error) {
	if local, ok := strings.CutPrefix(base, "docker:"); ok {
		return local, nil
	}
	if base == "scratch" || !strings.HasPrefix(base, "tar:") && !strings.HasPrefix(base, "rootfs:") && !strings.HasSuffix(base, ".tar") {
		return base, nil
	}
	image, err := baseImage(ctx, d, o, p)
	if err != nil {
		return "", err
	}
	digest, err := image.Digest()
	if err != nil {
		return "", err
	}
	tag, err := name.NewTag("berth-build/base:" + digest.Hex[:24])
	if err != nil {
		return "", err
	}
	return tag.String(), load(ctx, c, tag, image)
}

// load brings an image into the engine.
func load(ctx context.Context, c *client.Client, tag name.Tag, image v1.Image) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(tarball.Write(tag, image, w)) }()
	result, err := c.ImageLoad(ctx, r)
	if err != nil {
		r.CloseWithError(err)
		return berth.Errorf(berth.CodeUnavailable, "the Docker Engine does not take the image: %w", err)
	}
	defer result.Close()
	_, err = io.Copy(io.Discard, result)
	return err
}

// Load brings an image into the Docker Engine of DOCKER_HOST, by a tag.
func Load(ctx context.Context, tag string, image v1.Image) error {
	c, err := engine(ctx)
	if err != nil {
		return berth.Errorf(berth.CodeUnavailable, "there is no Docker Engine: start it, or name it in DOCKER_HOST: %w", err)
	}
	defer c.Close()
	ref, err := name.NewTag(tag)
	if err != nil {
		return err
	}
	return load(ctx, c, ref, image)
}

// buildContext streams what the engine builds from.
func buildContext(steps []instruction, files []entry) io.Reader {
	var text strings.Builder
	for _, s := range steps {
		text.WriteString(s.text + "\n")
	}
	r, w := io.Pipe()
	go func() {
		t := tar.NewWriter(w)
		err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "Dockerfile", Mode: 0o644, Size: int64(text.Len()), ModTime: stamp})
		if err == nil {
			_, err = io.WriteString(t, text.String())
		}
		if err == nil {
			err = folders(t, "files")
		}
		if err == nil {
			err = writeEntries(t, "files", files)
		}
		if err == nil {
			err = t.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}

var (
	stepLine = regexp.MustCompile(`^Step (\d+)/\d+ :`)
	colour   = regexp.MustCompile(`\x1b\[[0-9;]*m`) // the engine's own too, around what a command wrote to stderr
)

// keptOutput is how much of the end of a command's output is kept, at least.
const keptOutput = 64 << 10

// follow shows the engine's progress, and says which line of container.yml
// failed, with what its command wrote.
func follow(body io.Reader, d *pack.Definition, o Options, steps []instruction) error {
	at := -1
	var output []byte // the end of it: that is where a command says why it failed
	for decoder := json.NewDecoder(body); ; {
		var m struct {
			Stream string `json:"stream"`
			Error  string `json:"error"`
			Detail struct {
				Code    int    `json:"code"`
				Message string `json:"message"`
			} `json:"errorDetail"`
		}
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return berth.Errorf(berth.CodeUnavailable, "the connection to the Docker Engine broke during the build: %w", err)
		}
		// Steps come one after the other: what else looks like one is a command's output.
		if step := stepLine.FindStringSubmatch(m.Stream); step != nil && step[1] == strconv.Itoa(at+2) {
			at++
			output = nil
			if at < len(steps) && steps[at].what != "" {
				o.say("%s", label(d, steps[at]))
			}
			continue
		}
		if m.Error != "" {
			return failed(d, steps, at, m.Detail.Code, m.Error, string(output))
		}
		m.Stream = colour.ReplaceAllString(m.Stream, "")
		if text := strings.TrimSpace(m.Stream); text != "" && !strings.HasPrefix(text, "--->") && !strings.HasPrefix(text, "Removing intermediate") && !strings.HasPrefix(text, "Successfully ") {
			if output = append(output, m.Stream...); len(output) > 2*keptOutput {
				output = slices.Clone(output[len(output)-keptOutput:])
			}
			for line := range strings.Lines(text) {
				o.say("  | %s", strings.TrimRight(line, "\r\n"))
			}
		}
	}
}

func label(d *pack.Definition, s instruction) string {
	switch {
	case s.line == 0 && s.what == "dependencies":
		return "dependencies: " + strings.Join(d.Dependencies, " ")
	case s.line == 0:
		return s.what + ": " + s.text
	}
	for _, lines := range [][]pack.Line{d.Install, d.Unpack} {
		for _, line := range lines {
			if line.Line == s.line {
				return s.what + ": " + line.Text
			}
		}
	}
	return s.what
}

func failed(d *pack.Definition, steps []instruction, at, code int, message, output string) error {
	if at < 0 || at >= len(steps) {
		return berth.Errorf(berth.CodeInvalid, "the Docker Engine does not build: %s", message)
	}
	s := steps[at]
	where := d.Path
	if s.line > 0 {
		where = fmt.Sprintf("%s:%d", d.Path, s.line)
	}
	if code == 0 {
		return berth.Errorf(berth.CodeInvalid, "%s: %s: %s", where, s.what, message)
	}
	shown := ""
	if output = strings.TrimSpace(output); output != "" {
		lines := strings.Split(output, "\n")
		shown = ":\n  " + strings.Join(lines[max(0, len(lines)-20):], "\n  ")
	}
	return berth.Errorf(berth.CodeInvalid, "%s: the command ended with exit code %d (%s)%s", where, code, label(d, s), shown)
}
