# The registry on a name of its own, with every key of the registry itself and of GitLab's part in it
roles ['application_role']

external_url "https://gitlab.example.com/"
registry_external_url 'https://registry.example.com'
registry_nginx['listen_addresses'] = ["192.0.2.10"]
registry_nginx['redirect_http_to_https'] = true

=begin
registry['enable'] = false
=end

gitlab_rails['registry_enabled'] = true
gitlab_rails['registry_host'] = "registry.example.com"
gitlab_rails['registry_port'] = nil
gitlab_rails['registry_api_url'] = "http://registry.internal.example.com:5000"
gitlab_rails['registry_key_path'] = "/var/opt/gitlab/gitlab-rails/etc/gitlab-registry.key"
gitlab_rails['registry_path'] = "/var/opt/gitlab/gitlab-rails/shared/registry"
gitlab_rails['registry_issuer'] = "omnibus-gitlab-issuer"
gitlab_rails['registry_notification_secret'] = 'not-a-real-notification-secret'
gitlab_rails['backup_registry_user'] = 'registry'
gitlab_rails['backup_registry_password'] = 'not-a-real-password'
gitlab_rails['restore_registry_user'] = 'registry'
gitlab_rails['restore_registry_password'] = 'not-a-real-password'
gitlab_rails['gitlab_default_projects_features_container_registry'] = true
gitlab_rails['geo_registry_replication_enabled'] = false
gitlab_rails['geo_registry_replication_primary_api_url'] = 'https://primary.example.com:5050/'
gitlab_rails['smtp_address'] = "smtp.example.com"

registry['enable'] = true
registry['username'] = "registry"
registry['group'] = "registry"
registry['uid'] = nil
registry['gid'] = nil
registry['dir'] = "/var/opt/gitlab/registry"
registry['shell'] = "/usr/sbin/nologin"
registry['log_directory'] = "/var/log/gitlab/registry"
registry['env_directory'] = "/opt/gitlab/etc/registry/env"
registry['env'] = {
  'SSL_CERT_DIR' => "/opt/gitlab/embedded/ssl/certs/",
  'GODEBUG' => 'tlsmlkem=0',
  "REGISTRY_HTTP_RELATIVEURLS" => true,
  'REGISTRY_LOG_LEVEL' => 'info'
}
registry['log_level'] = "info"
registry['log_formatter'] = "json"
registry['rootcertbundle'] = "/var/opt/gitlab/registry/gitlab-registry.crt"
registry['registry_http_addr'] = "127.0.0.1:5000"
registry['http_secret'] = 'not-a-real-secret-but-of-the-length-of-one'
registry['internal_key'] = "-----BEGIN RSA PRIVATE KEY-----\nnot a key\n"
registry['internal_certificate'] = "-----BEGIN CERTIFICATE-----\nnot a certificate\n"
registry['token_realm'] = "https://gitlab.example.com"
registry['health_storagedriver_enabled'] = true
registry['storage'] = {
  'filesystem' => {
    'rootdirectory' => "/var/opt/gitlab/gitlab-rails/shared/registry"
  },
  'maintenance' => {
    'uploadpurging' => { 'enabled' => true, 'age' => '168h', 'interval' => '24h', 'dryrun' => false },
    'readonly' => { 'enabled' => false }
  },
  'redirect' => { 'disable' => true },
}
registry['storage_delete_enabled'] = true
registry['cache'] = 'inmemory'
registry['middleware'] = nil
registry['debug_addr'] = "localhost:5001"
registry['validation_enabled'] = false
registry['autoredirect'] = false
registry['compatibility_schema1_enabled'] = false
registry['database'] = { 'enabled' => 'prefer', 'host' => '/var/opt/gitlab/postgresql', 'user' => 'registry', 'dbname' => 'registry', 'port' => 5432, 'sslmode' => 'prefer' }
registry['auto_migrate'] = true
registry['gc'] = { 'maxbackoff' => '24h' }
registry['reporting'] = { 'sentry' => { 'enabled' => false, 'dsn' => nil } }
registry['http_draintimeout'] = "30s"
registry['notifications'] = [
  {
    'name' => 'test_endpoint',
    'url' => 'https://gitlab.example.com/api/v4/container_registry_event/events',
    'timeout' => '500ms',
    'threshold' => 5,
    'backoff' => '1s',
    'headers' => { 'Authorization' => ['not-a-real-token'] }
  }
]
registry['default_notifications_timeout'] = "500ms"
registry['default_notifications_threshold'] = 5
registry['default_notifications_maxretries'] = 5
registry['default_notifications_backoff'] = "1s"
registry['default_notifications_headers'] = {}
registry['redis'] = { 'cache' => { 'enabled' => false }, 'loadbalancing' => { 'enabled' => false } }

# What only running could tell
registry['env']['REGISTRY_HTTP_PROXY'] = ENV['HTTP_PROXY']
registry_nginx['custom_gitlab_server_config'] = "limit_rate #{ENV.fetch('RATE', '1m')};"
registry['log_fields'] = <<-FIELDS
  cluster: #{node['name']}
FIELDS
if File.exist?('/etc/gitlab/readonly')
  registry['storage']['maintenance']['readonly']['enabled'] = true
  registry_nginx['listen_port'] = 8443
end
registry_nginx['real_ip_trusted_addresses'] = ['10.0.0.0/8'] unless ENV['DIRECT']
secret = File.read('/etc/gitlab/registry-secret').strip
registry['http_secret'] = secret

postgresql['enable'] = true
__END__
registry['enable'] = false
