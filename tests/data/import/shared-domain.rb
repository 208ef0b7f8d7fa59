## GitLab and its registry on one name, port 5050: every key of the registry's NGINX, in the old and in the new spelling
external_url 'https://gitlab.example.com'
registry_external_url 'https://gitlab.example.com:5050'

registry_nginx['enable'] = true
registry_nginx['https'] = true
registry_nginx['listen_addresses'] = ['*', '[::]'] # both families
registry_nginx['listen_port'] = "5051"
registry['nginx']['listen_port'] = 5050
registry['nginx']['listen_https'] = nil
registry_nginx['redirect_http_to_https'] = false
registry_nginx['redirect_http_to_https_port'] = 80
registry_nginx['proxy_protocol'] = false
registry_nginx['real_ip_header'] = 'X-Forwarded-For'
registry_nginx['real_ip_recursive'] = 'on'
registry_nginx['real_ip_trusted_addresses'] = %w(10.0.0.0/8 2001:db8::/32)
registry_nginx['proxy_set_headers'] = {
  "Host" => "$http_host",
  :"X-Real-IP" => "$remote_addr",
  'X-Forwarded-For': "$proxy_add_x_forwarded_for",
  "X-Forwarded-Proto" => "https",
  "X-Forwarded-Ssl" => "on",
  "X-Deployment" => "blue",
  "X-Client" => "$ssl_client_s_dn",
  "X-Debug" => nil,
}
registry_nginx['ssl_certificate'] = "/etc/gitlab/ssl/gitlab.example.com.crt"
registry_nginx['ssl_certificate_key'] = "/etc/gitlab/ssl/gitlab.example.com.key"
registry_nginx['ssl_password_file'] = nil
registry_nginx['ssl_client_certificate'] = '/etc/gitlab/ssl/ca.crt'
registry_nginx['ssl_verify_client'] = 'on'
registry_nginx['ssl_verify_depth'] = "2"
registry_nginx['ssl_protocols'] = "TLSv1.1 TLSv1.2 TLSv1.3"
registry_nginx['ssl_ciphers'] = "ECDHE-RSA-AES256-GCM-SHA384" \
  ":ECDHE-RSA-AES128-GCM-SHA256"
registry_nginx['ssl_prefer_server_ciphers'] = "off"
registry_nginx['ssl_session_cache'] = "shared:SSL:10m"
registry_nginx['ssl_session_timeout'] = "1d"
registry_nginx['ssl_session_tickets'] = "off"
registry_nginx['ssl_dhparam'] = nil
registry_nginx['ssl_ecdh_curve'] = 'X25519:prime256v1'
registry_nginx['ssl_conf_command'] = 'Options KTLS'
registry['nginx'] = {
  'hsts_max_age' => 31536000,
  'hsts_include_subdomains' => true,
  'http2_enabled' => false,
  'error_log_level' => 'info',
  'log_directory' => '/var/log/gitlab/nginx',
  'listen_port' => 5050
}
registry_nginx['custom_gitlab_server_config'] = <<~NGINX
  location ^~ /.well-known {
    root /var/www/letsencrypt;
  }
  allow 10.0.0.0/8;
  allow 127.0.0.0/8;
  deny all;
  add_header X-Served-By pierhead-import always;
  limit_req zone=registry;
NGINX
registry_nginx['client_max_body_size'] = '250m'
registry_nginx['proxy_read_timeout'] = 3600
registry_nginx['proxy_connect_timeout'] = 300
registry_nginx['request_buffering_off_path_regex'] = "/api/v\\d/jobs/\\d+/artifacts$"
registry_nginx['proxy_custom_buffer_size'] = '8k'
registry_nginx['referrer_policy'] = 'strict-origin-when-cross-origin'
registry_nginx['gzip_enabled'] = true
registry_nginx['gzip_comp_level'] = "2"
registry_nginx['proxy_cache'] = 'gitlab'
registry_nginx['custom_error_pages'] = {}
registry_nginx['default_server_enabled'] = true
registry_nginx['status'] = { 'enable' => true, 'listen_addresses' => ['*'], 'port' => 8060 }

letsencrypt['enable'] = true
letsencrypt['contact_emails'] = ['ops@example.com']
letsencrypt['auto_renew_day_of_month'] = "*/4"

nginx['enable'] = true
nginx['status'] = { 'port' => 8060 }
nginx['worker_processes'] = 4
nginx['custom_nginx_config'] = "include /etc/nginx/conf.d/*.conf;"

registry['registry_http_addr'] = "localhost:5000"
