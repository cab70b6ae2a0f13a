package control

import (
	"context"

	"github.com/berth-run/berth"
)

func (h *Host) Package(ctx context.Context, infrastructure, name, version string) (berth.Package, error) {
	entry, err := h.entryFor(h.caller(ctx), berth.RoleRead, infrastructure)
	if err != nil {
		return berth.Package{}, err
	}
	pkg, _, err := h.packages.find(ctx, entry, name, version, "")
	return pkg, err
}

// resolveCall fixes what a call means: the image by digest, and the arguments
// checked against the function's declared types.
func (h *Host) resolveCall(ctx context.Context, entry berth.InfrastructureConfig, spec *berth.TaskSpec) error {
	call := *spec.Call
	pkg, image, err := h.packages.find(ctx, entry, call.Package, call.Version, call.Digest)
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
