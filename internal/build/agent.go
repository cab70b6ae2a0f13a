package build

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/agentbin"
	"github.com/berth-run/berth/internal/images"
)

// AgentImage makes the image that other images get the agent from: the agent
// and nothing else.
func AgentImage(platforms []string, program func(platform string) ([]byte, error)) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range platforms {
		data, err := program(platform)
		if err != nil {
			return nil, err
		}
		layer, err := agentLayer(data)
		if err != nil {
			return nil, err
		}
		p, err := v1.ParsePlatform(platform)
		if err != nil {
			return nil, err
		}
		image, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), layer)
		if err != nil {
			return nil, err
		}
		image, err = configured(image, func(config *v1.ConfigFile) {
			config.OS, config.Architecture, config.Created = p.OS, p.Architecture, v1.Time{Time: stamp}
			// Not root, so that a namespace that is restricted takes it.
			config.Config = v1.Config{Entrypoint: []string{agent.Path}, User: "65532:65532"}
		})
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: p}})
	}
	return index, nil
}

// PushAgent puts the agent that this berth carries into a store, if it isn't
// there, and returns the digest of its image.
func PushAgent(ctx context.Context, to *images.Store, repository string) (string, error) {
	index, err := AgentImage(agentbin.Platforms, agentbin.Binary)
	if err != nil {
		return "", err
	}
	digest, err := index.Digest()
	if err != nil {
		return "", err
	}
	if has, err := to.Has(ctx, repository, digest.String()); err != nil || has {
		return digest.String(), err
	}
	return to.Push(ctx, index, repository, "1", nil)
}
