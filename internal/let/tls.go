package let

import (
	"crypto/tls"
	"crypto/x509"
)

// trusting is how the control plane is reached: verified by its CA (PEM), or by
// the system's where that is empty.
func trusting(ca string) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM([]byte(ca))
	}
	return config
}
