package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"regexp"
	"sync"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

// imageID is the reference of an image by its own ID: it was loaded or built
// here, or ran here before, and can't be pulled.
var imageID = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// imageFacts is what is known of an image that the Engine has.
type imageFacts struct {
	ref      string // as the Engine knows it
	platform string // such as linux/amd64
	user     string // that it runs as; empty for root
}

// image sees to it that the Engine has the image of an attempt. A retry runs
// what the first attempt ran.
func (d *Driver) image(ctx context.Context, order engine.Order) (imageFacts, error) {
	ref, policy := order.Spec.Image, pullPolicy(&order.Spec)
	if order.Attempt > 1 && imageID.MatchString(order.ImageID) {
		ref = order.ImageID
	}
	if imageID.MatchString(ref) {
		policy = berth.PullNever
	}
	if policy == berth.PullAlways {
		if err := d.pull(ctx, ref, order); err != nil {
			return imageFacts{}, err
		}
	}
	facts, err := d.inspectImage(ctx, ref)
	switch {
	case err == nil:
		return facts, nil
	case !cerrdefs.IsNotFound(err):
		return imageFacts{}, d.refuse(err, "get the image", order)
	case order.Agent != nil && order.Agent.Load != nil:
		if err := d.load(ctx, order); err != nil {
			return imageFacts{}, err
		}
		if facts, err = d.inspectImage(ctx, ref); err != nil {
			return imageFacts{}, d.refuse(err, "get the image", order)
		}
		return facts, nil
	case policy != berth.PullMissing:
		return imageFacts{}, d.refuse(err, "never pull", order)
	}
	if err := d.pull(ctx, ref, order); err != nil {
		return imageFacts{}, err
	}
	if facts, err = d.inspectImage(ctx, ref); err != nil {
		return imageFacts{}, d.refuse(err, "get the image", order)
	}
	return facts, nil
}

func pullPolicy(spec *berth.TaskSpec) berth.PullPolicy {
	switch {
	case spec.Pull != berth.PullDefault:
		return spec.Pull
	case berth.ImageIsLatest(spec.Image):
		return berth.PullAlways
	}
	return berth.PullMissing
}

func (d *Driver) inspectImage(ctx context.Context, ref string) (imageFacts, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	i, err := d.client.api.ImageInspect(ctx, ref)
	if err != nil {
		return imageFacts{}, err
	}
	facts := imageFacts{ref: ref, platform: i.Os + "/" + i.Architecture}
	if i.Config != nil {
		facts.user = i.Config.User
	}
	return facts, nil
}

// pulls are the pulls under way: who wants an image that is being pulled waits
// for that.
type pulls struct {
	mu    sync.Mutex
	under map[string]*onePull
}

type onePull struct {
	done chan struct{}
	err  error // valid once done is closed
}

func newPulls() *pulls { return &pulls{under: map[string]*onePull{}} }

// pull pulls an image, or waits for who does. It ends early when the context
// does, and what others wait for goes on.
func (d *Driver) pull(ctx context.Context, ref string, order engine.Order) error {
	d.pulls.mu.Lock()
	p := d.pulls.under[ref]
	if p == nil {
		p = &onePull{done: make(chan struct{})}
		d.pulls.under[ref] = p
		go func() {
			// No longer than a container may take to start.
			limit := d.config.Grace.Start
			pullCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
			defer cancel()
			if p.err = d.pullNow(pullCtx, ref, order); p.err != nil && pullCtx.Err() != nil {
				p.err = errSlowPull{limit}
			}
			d.pulls.mu.Lock()
			delete(d.pulls.under, ref)
			d.pulls.mu.Unlock()
			close(p.done)
		}()
	}
	d.pulls.mu.Unlock()
	select {
	case <-p.done:
		if p.err != nil {
			return d.refuse(p.err, "pull", order)
		}
		return nil
	case <-ctx.Done():
		return &engine.Refusal{Kind: engine.RefusedTransient, Err: ctx.Err()} // nothing was made
	case <-order.Unwanted:
		return &engine.Refusal{Kind: engine.RefusedTransient, Err: context.Canceled}
	}
}

func (d *Driver) pullNow(ctx context.Context, ref string, order engine.Order) error {
	answer, err := d.client.api.ImagePull(ctx, ref, client.ImagePullOptions{RegistryAuth: pullAuth(ref, order)})
	if err != nil {
		return err
	}
	defer answer.Close()
	return answer.Wait(ctx)
}

// load brings the image of a package into the Engine, which pulls from nowhere.
func (d *Driver) load(ctx context.Context, order engine.Order) error {
	version, err := d.client.api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return d.refuse(err, "load the image", order)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(order.Agent.Load(ctx, version.Os+"/"+version.Arch, w)) }()
	defer r.Close()
	answer, err := d.client.api.ImageLoad(ctx, r)
	if err != nil {
		return d.refuse(err, "load the image", order)
	}
	defer answer.Close()
	if _, err := io.Copy(io.Discard, answer); err != nil {
		return d.refuse(err, "load the image", order)
	}
	return nil
}

// pullAuth returns the login for an order's image: that of the infrastructure's
// registry for what comes from there, and for nothing else.
func pullAuth(ref string, order engine.Order) string {
	if order.Agent == nil || order.Agent.Registry == nil {
		return registryAuth(ref)
	}
	login := order.Agent.Registry
	image, err := name.ParseReference(ref)
	if err != nil {
		return ""
	}
	if from, err := name.NewRegistry(login.Host); err != nil || from.RegistryStr() != image.Context().RegistryStr() {
		return registryAuth(ref)
	}
	return encodeAuth(registry.AuthConfig{Username: login.Username, Password: login.Password.Reveal(), ServerAddress: login.Host})
}

// registryAuth returns the login for an image's registry, from docker's own
// settings and credential helpers; empty where there is none.
func registryAuth(ref string) string {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return ""
	}
	login, err := authn.DefaultKeychain.Resolve(parsed.Context())
	if err != nil || login == authn.Anonymous {
		return ""
	}
	c, err := login.Authorization()
	if err != nil {
		return ""
	}
	return encodeAuth(registry.AuthConfig{
		Username: c.Username, Password: c.Password, Auth: c.Auth, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
		ServerAddress: parsed.Context().RegistryStr(),
	})
}

func encodeAuth(config registry.AuthConfig) string {
	data, err := json.Marshal(config)
	if err != nil {
		return ""
	}
	return base64.URLEncoding.EncodeToString(data)
}
