package control

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/build"
	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/images"
	"github.com/berth-run/berth/internal/registry"
)

// packages finds the images of functions, in Berth's own registry and in those
// that infrastructures pull from.
type packages struct {
	at    func() (*registry.Registry, error)
	swept func(registry.Report, error)
	own   func(where string) bool // whether an address of infra.yml is that of our own registry

	mu       sync.Mutex
	registry *registry.Registry // opened when it is first needed
	stop     func()             // ends what keeps it in order

	agentMu sync.Mutex
	agents  map[string]string // by registry: the agent's image there
}

func newPackages(at func() (*registry.Registry, error), ownHosts []string, log *slog.Logger) *packages {
	return &packages{
		swept: func(report registry.Report, err error) {
			if err != nil {
				log.Error("the registry could not be swept", "error", err)
				return
			}
			log.Info("the registry was swept", "blobs", report.Blobs, "bytes", report.Bytes, "uploads", report.Uploads)
		},
		at: at, agents: map[string]string{},
		own: func(where string) bool {
			host, _, _ := strings.Cut(where, "/")
			for _, own := range ownHosts {
				if host == own {
					return true
				}
			}
			return false
		},
	}
}

func (p *packages) open() (*registry.Registry, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.registry == nil {
		r, err := p.at()
		if err != nil {
			return nil, err
		}
		p.registry = r
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Keep(ctx, p.swept)
		}()
		p.stop = func() {
			cancel()
			<-done
		}
	}
	return p.registry, nil
}

func (p *packages) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.registry != nil {
		p.stop()
		_ = p.registry.Close()
	}
}

// ServeHTTP is the registry, at /v2/. Who may do what is the mounter's affair.
func (p *packages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	registry, err := p.open()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	registry.ServeHTTP(w, r)
}

// store is our own registry.
func (p *packages) store() *images.Store { return images.Local(images.HandlerTransport{Handler: p}) }

// find returns a package as an infrastructure runs it, and the image, pinned
// by digest, that its containers are made from: of our own registry, or of the
// infrastructure's. A digest, where it is given, decides.
func (p *packages) find(ctx context.Context, infra berth.InfrastructureConfig, name, version, digest string) (berth.Package, string, error) {
	reference := version
	if digest != "" {
		reference = digest
	}
	own := p.store()
	pkg, err := own.Inspect(ctx, name, reference)
	if infra.Registry == "" && infra.Kind == berth.KindDocker {
		return pkg, images.LoadTag(name, pkg.Digest), err
	}
	if infra.Registry == "" {
		return pkg, own.Reference(name, pkg.Digest), err
	}
	theirs := images.Remote(p.registryOf(infra), nil)
	switch {
	case err == nil && p.own(infra.Registry):
		return pkg, theirs.Reference(name, pkg.Digest), nil
	case err == nil:
		return pkg, theirs.Reference(name, pkg.Digest), p.deliver(ctx, own, theirs, name, pkg)
	case berth.CodeOf(err) != berth.CodeNotFound || p.own(infra.Registry):
		return pkg, "", err
	}
	if pkg, err = theirs.Inspect(ctx, name, reference); err != nil {
		return pkg, "", err
	}
	return pkg, theirs.Reference(name, pkg.Digest), nil
}

// registryOf is where an infrastructure's nodes pull from. Our own registry has
// all packages at its root, whatever follows its address.
func (p *packages) registryOf(infra berth.InfrastructureConfig) string {
	if host, _, _ := strings.Cut(infra.Registry, "/"); p.own(host) {
		return host
	}
	return infra.Registry
}

// loader writes a package of ours as docker load takes it.
func (p *packages) loader(name, digest string) func(ctx context.Context, platform string, w io.Writer) error {
	return func(ctx context.Context, platform string, w io.Writer) error {
		return p.store().DockerArchive(ctx, w, name, digest, platform)
	}
}

// pullUser is who the nodes of an infrastructure are to our own registry; its
// name follows.
const pullUser = "pull-"

// login returns how the nodes of an infrastructure log in to its registry: to
// our own by a token for just that, to another as this machine does; nil where
// it takes anybody.
func (p *packages) login(infra berth.InfrastructureConfig, keys agent.Keys) *engine.RegistryLogin {
	host, _, _ := strings.Cut(infra.Registry, "/")
	if p.own(infra.Registry) {
		return &engine.RegistryLogin{Host: host, Username: pullUser + infra.Name, Password: berth.Secret(keys.PullToken(infra.Name))}
	}
	user, password, ok := images.Login(host)
	if !ok {
		return nil
	}
	return &engine.RegistryLogin{Host: host, Username: user, Password: berth.Secret(password)}
}

// admits reports whether a request to the registry is one of those that nobody
// sends who has a token of Berth: an infrastructure's nodes may read what they
// run, and the tasks of workflows hand files to each other.
func (h *Host) admits(r *http.Request) bool {
	user, password, _ := r.BasicAuth()
	if task, ok := strings.CutPrefix(user, filesUser); ok {
		return h.agents.mayHandFiles(r, task, password)
	}
	infrastructure, ok := strings.CutPrefix(user, pullUser)
	return ok && (r.Method == http.MethodGet || r.Method == http.MethodHead) && h.agents.keys.ValidPull(password, infrastructure)
}

// deliver sees to it that a registry has a package of ours.
func (p *packages) deliver(ctx context.Context, own, theirs *images.Store, name string, pkg berth.Package) error {
	has, err := theirs.Has(ctx, name, pkg.Digest)
	if err != nil || has {
		return err
	}
	_, err = images.Copy(ctx, own, theirs, name, pkg, nil)
	return err
}

// agentPackage is the repository of the agent's image.
const agentPackage = "berth/let"

// agentImage returns the image that an infrastructure's pods get the agent
// from: what infra.yml says, or the agent that this berth carries, in the
// registry that they pull from.
func (p *packages) agentImage(ctx context.Context, infra berth.InfrastructureConfig) (string, error) {
	if infra.AgentImage != "" {
		return infra.AgentImage, nil
	}
	if infra.Registry == "" {
		return "", berth.Errorf(berth.CodeInvalid, "infrastructure %s: steps are run by Berth's agent, whose image its nodes have to get from somewhere: set registry: (Berth puts it there), or load it with berth package load berth/let and set agent_image: to what that prints", infra.Name)
	}
	p.agentMu.Lock()
	defer p.agentMu.Unlock()
	if image := p.agents[infra.Registry]; image != "" {
		return image, nil
	}
	to := images.Remote(infra.Registry, nil)
	if p.own(infra.Registry) {
		to = p.store()
	}
	digest, err := build.PushAgent(ctx, to, agentPackage)
	if err != nil {
		return "", err
	}
	image := images.Remote(p.registryOf(infra), nil).Reference(agentPackage, digest)
	p.agents[infra.Registry] = image
	return image, nil
}
