package kube

import (
	"io"

	"k8s.io/klog/v2"
)

// QuietClientGo keeps client-go from writing to stderr by itself, as it does
// when it refreshes credentials: what matters reaches the person as an error or
// a diagnosis. It is global, so programs decide on it, not packages.
func QuietClientGo() {
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
}
