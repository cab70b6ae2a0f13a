package kubeconfig

import (
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/berth-run/berth"
)

// admin is the kubeconfig of whoever runs create-kubeconfig.
type admin struct {
	context string
	cluster *api.Cluster
	name    string // of the cluster in it
	ca      []byte
	config  *rest.Config
	files   []string // that it was read from
}

// loadAdmin reads it by kubectl's own rules.
func loadAdmin(path, context string) (*admin, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath, rules.WarnIfAllMissing = path, false
	files := rules.GetLoadingPrecedence()
	where := strings.Join(files, ", ")
	if path != "" {
		where = path
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, berth.Errorf(berth.CodeInvalid, "your own kubeconfig %s does not exist; name it with --kubeconfig", path)
		}
	}
	config, err := rules.Load()
	if err != nil {
		// The decoder's text may quote the file, and the file holds secrets.
		return nil, berth.Errorf(berth.CodeInvalid, "your own kubeconfig (%s) is not a kubeconfig, or can't be read", where)
	}
	names := slices.Sorted(maps.Keys(config.Contexts))
	if len(names) == 0 {
		return nil, berth.Errorf(berth.CodeInvalid, "to grant access you need access: there is no kubeconfig of yours with a context in it (looked at %s); name one with --kubeconfig, or set KUBECONFIG. docs/clusters.md says how to get one", where)
	}
	if context == "" {
		context = config.CurrentContext
	}
	if config.Contexts[context] == nil {
		return nil, berth.Errorf(berth.CodeInvalid, "your own kubeconfig (%s) has no context %q; choose one with --context: %s", where, context, strings.Join(names, ", "))
	}
	a := &admin{context: context, name: config.Contexts[context].Cluster, files: files}
	if a.cluster = config.Clusters[a.name]; a.cluster == nil || a.cluster.Server == "" {
		return nil, berth.Errorf(berth.CodeInvalid, "your own kubeconfig (%s) is not complete: the cluster %q of context %q is not in it, or has no server", where, a.name, context)
	}
	if a.cluster.InsecureSkipTLSVerify {
		return nil, berth.Errorf(berth.CodeInvalid, "your own kubeconfig (%s) turns off the verification of TLS, so it can't tell the cluster's CA; put certificate-authority-data into it", where)
	}
	a.config, err = clientcmd.NewNonInteractiveClientConfig(*config, context, &clientcmd.ConfigOverrides{}, rules).ClientConfig()
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "your own kubeconfig (%s) can't be used: %w", where, err)
	}
	if err := rest.LoadTLSFiles(a.config); err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "your own kubeconfig (%s) names certificates that can't be read: %w", where, err)
	}
	a.ca = a.config.CAData
	return a, nil
}

// local reports whether the server can be reached from this machine only.
func (a *admin) local() bool {
	u, err := url.Parse(a.cluster.Server)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || (ip != nil && ip.IsLoopback())
}
