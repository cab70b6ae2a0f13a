package kubeconfig

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/berth-run/berth"
)

// SelfContained returns the text of a kubeconfig with one context, its current
// one when none is named, and with the content of the files that it names: what
// another machine can use. CodeInvalid where it needs a program of this one.
func SelfContained(path, context string) (string, error) {
	invalid := func(format string, args ...any) (string, error) {
		return "", berth.Errorf(berth.CodeInvalid, "kubeconfig %s "+format, append([]any{path}, args...)...)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return invalid("does not exist")
	}
	config, err := clientcmd.LoadFromFile(path)
	if err != nil {
		return invalid("is not a kubeconfig, or can't be read") // the decoder's text may quote it
	}
	if context == "" {
		context = config.CurrentContext
	}
	chosen := config.Contexts[context]
	if chosen == nil {
		return invalid("has no context %q; choose one with --context: %s", context, strings.Join(slices.Sorted(maps.Keys(config.Contexts)), ", "))
	}
	if user := config.AuthInfos[chosen.AuthInfo]; user != nil && (user.Exec != nil || user.AuthProvider != nil) {
		return invalid("logs in with a program of this machine (an exec plugin), which the server doesn't run: make one with berth create-kubeconfig")
	}
	// Only the chosen context goes over the network.
	config.CurrentContext = context
	if err := api.MinifyConfig(config); err != nil {
		return invalid("is not complete: %w", err)
	}
	if err := clientcmd.ResolveLocalPaths(config); err != nil {
		return invalid("names files that can't be resolved: %w", err)
	}
	for name, user := range config.AuthInfos {
		if user.TokenFile == "" {
			continue
		}
		token, err := os.ReadFile(user.TokenFile)
		if err != nil {
			return invalid("names a token that can't be read: %w", err)
		}
		config.AuthInfos[name].Token, config.AuthInfos[name].TokenFile = strings.TrimSpace(string(token)), ""
	}
	if err := api.FlattenConfig(config); err != nil {
		return invalid("names files that can't be read: %w", err)
	}
	text, err := clientcmd.Write(*config)
	if err != nil {
		return invalid("can't be written anew: %w", err)
	}
	return string(text), nil
}
