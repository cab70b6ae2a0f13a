package kube

import (
	"log/slog"

	"k8s.io/klog/v2"
)

// QuietClientGo keeps client-go from writing to stderr by itself, as it does
// when it refreshes credentials, or a connection is cut: what matters reaches the person as an error or
// a diagnosis. It is global, so programs decide on it, not packages.
func QuietClientGo() {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // without a logger errors go to stderr, wherever the rest goes
}
