package kube

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/berth-run/berth"
)

// CheckSelfContained refuses a kubeconfig that names files or programs: of one
// that was sent from elsewhere they would be this machine's. CodeForbidden.
func CheckSelfContained(data []byte) error {
	config, err := clientcmd.Load(data)
	if err != nil {
		return berth.Errorf(berth.CodeInvalid, "the kubeconfig is not YAML of that form") // the decoder's text may quote it
	}
	refuse := func(what, field string) error {
		return berth.Errorf(berth.CodeForbidden, "the kubeconfig's %s has %s, and would be the server's: put its content into the kubeconfig (kubectl config view --flatten --minify), or make one with berth create-kubeconfig", what, field)
	}
	for _, name := range slices.Sorted(maps.Keys(config.Clusters)) {
		if c := config.Clusters[name]; c != nil && c.CertificateAuthority != "" {
			return refuse(fmt.Sprintf("cluster %q", name), "certificate-authority, which names a file")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(config.AuthInfos)) {
		user, what := config.AuthInfos[name], fmt.Sprintf("user %q", name)
		switch {
		case user == nil:
		case user.Exec != nil:
			return refuse(what, "an exec plugin, which is a program")
		case user.AuthProvider != nil:
			return refuse(what, "an auth-provider, which is a program")
		case user.ClientCertificate != "":
			return refuse(what, "client-certificate, which names a file")
		case user.ClientKey != "":
			return refuse(what, "client-key, which names a file")
		case user.TokenFile != "":
			return refuse(what, "tokenFile, which names a file")
		}
	}
	return nil
}
