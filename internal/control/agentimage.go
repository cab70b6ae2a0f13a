package control

import (
	"context"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agentbin"
)

// agentBinary returns the agent for a platform such as linux/amd64.
func (h *Host) agentBinary(platform string) ([]byte, error) {
	return agentbin.Binary(platform)
}

// agentImage returns the image that an infrastructure's pods get the agent from.
func (h *Host) agentImage(ctx context.Context, infra berth.InfrastructureConfig) (string, error) {
	if infra.AgentImage != "" {
		return infra.AgentImage, nil
	}
	return "", berth.Errorf(berth.CodeInvalid, "infrastructure %s has neither registry nor agent_image", infra.Name)
}
