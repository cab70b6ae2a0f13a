package control

import (
	"context"

	"github.com/berth-run/berth"
)

// packages finds the images of functions; see package images.
type packages interface {
	// Find returns a package as an infrastructure runs it, and the image,
	// pinned by digest, that its containers are made from. The newest version
	// for an empty one; a digest, where it is given, decides.
	Find(ctx context.Context, infra berth.InfrastructureConfig, name, version, digest string) (pkg berth.Package, image string, err error)
}

func (h *Host) Package(ctx context.Context, infrastructure, name, version string) (berth.Package, error) {
	h.mu.Lock()
	entry, err := h.entryLocked(infrastructure)
	h.mu.Unlock()
	if err != nil {
		return berth.Package{}, err
	}
	pkg, _, err := h.packages.Find(ctx, entry, name, version, "")
	return pkg, err
}

// resolveCall fixes what a call means: the image by digest, and the arguments
// checked against the function's declared types.
func (h *Host) resolveCall(ctx context.Context, entry berth.InfrastructureConfig, spec *berth.TaskSpec) error {
	call := *spec.Call
	pkg, image, err := h.packages.Find(ctx, entry, call.Package, call.Version, call.Digest)
	if err != nil {
		return err
	}
	if call.Arguments, call.Secrets, err = pkg.Arguments(call.Function, call.Arguments); err != nil {
		return err
	}
	call.Version, call.Digest = pkg.Version, pkg.Digest
	spec.Call, spec.Image = &call, image
	return nil
}

// noPackages stands for a registry that isn't there yet.
type noPackages struct{}

func (noPackages) Find(context.Context, berth.InfrastructureConfig, string, string, string) (berth.Package, string, error) {
	return berth.Package{}, "", berth.Errorf(berth.CodeUnsupported, "there is no registry")
}
