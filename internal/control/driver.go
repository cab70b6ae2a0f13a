package control

import (
	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/docker"
	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/kube"
)

// connection is a driver, and what is known of where it leads before anything
// is asked.
type connection struct {
	engine.Driver
	namespace string // empty where there is none
	close     func() // connections that nothing uses
}

// Underlying is the driver itself: not all can do everything.
func (c *connection) Underlying() engine.Driver { return c.Driver }

// connect makes the driver of an entry of infra.yml, by its kind. It contacts
// nothing yet.
func (h *Host) connect(entry berth.InfrastructureConfig, instance string) (*connection, error) {
	switch entry.Kind {
	case berth.KindDocker:
		client, err := docker.NewClient(entry)
		if err != nil {
			return nil, err
		}
		return &connection{Driver: docker.NewDriver(client, entry, instance), close: client.Close}, nil
	default:
		client, err := kube.NewClient(entry, kube.Options{Tokens: h.store, Log: h.config.Log})
		if err != nil {
			return nil, err
		}
		return &connection{Driver: kube.NewDriver(client, entry, instance), namespace: client.Namespace, close: client.Close}, nil
	}
}

// sourceEntry is the entry that a source would become, to see whether it leads
// anywhere.
func sourceEntry(source berth.InfrastructureSource) berth.InfrastructureConfig {
	entry := berth.InfrastructureConfig{Name: source.Name, Kind: source.Kind, Address: source.Address}
	if entry.Kind != berth.KindDocker {
		entry.Kind, entry.Namespace = berth.KindKube, source.Namespace
		entry.Credentials = berth.Credentials{Mechanism: "config", Path: source.Kubeconfig, Content: source.Content, Context: source.Context}
	}
	return entry
}
